"""``python -m hpcdd``, and the command ``hpcdd``."""

import os
import sys


def main() -> int:
    """Runs one command; says so where a file of the user's hides a module that it needs."""
    from .core import shadowed_modules

    try:
        from .cli import main as cli

        return cli.main()
    except (ImportError, AttributeError):
        if hidden := shadowed_modules.hidden():
            print(f"hpcdd: {hidden}", file=sys.stderr)
            return 2
        raise


if __name__ == "__main__":
    # Python puts the working folder first on the path: a random.py or torch.py in it would be imported for the module
    # of this name. The user's own networks are found there all the same, see hpcdd.models.registry.
    if not sys.flags.safe_path and sys.path[0] in ("", os.path.abspath(os.curdir)):
        del sys.path[0]
    sys.exit(main())
