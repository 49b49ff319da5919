"""Files of the user's that hide another module by its name; imports nothing that they could hide."""

import os
import sys

_PACKAGES = {"h5py", "jinja2", "matplotlib", "mpi4py", "nibabel", "numpy", "PIL", "psutil", "pydantic", "rich"}
_PACKAGES |= {"scipy", "torch", "yaml"}


def hidden() -> str | None:
    """A sentence on the first such file that was imported, from the working folder or PYTHONPATH; None without any."""
    folders = {os.path.abspath(folder) for folder in (os.curdir, *os.environ.get("PYTHONPATH", "").split(os.pathsep))}
    folders.discard(os.path.dirname(os.__file__))
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file:
            continue
        is_package = os.path.basename(file) == "__init__.py"
        folder = os.path.dirname(os.path.dirname(file) if is_package else file)
        what = "Python's module" if name in sys.stdlib_module_names else "the package" if name in _PACKAGES else None
        if what and not (is_package and name in _PACKAGES) and os.path.abspath(folder) in folders:
            return f"{file} hides {what} {name!r}, which hpcdd needs; rename or move the file"
    return None
