"""``hpcdd info``: what is installed here, and what is wrong with it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from ..core import environment
from ..core.errors import UserError
from ..mpi import launcher as launch
from ..mpi import library as mpi
from .parser import Parser, parse


def declare(parser: Parser) -> None:
    """Says what the command does; it has no options."""
    parser.describe(
        "What is installed here, and what is wrong with it: versions, MPI library and launcher, devices, memory.",
        "hpcdd info",
    )


def run_alone(words: Sequence[str]) -> int:
    """Prints what there is.

    Returns:
        0, or 2 if training could not start here.
    """
    parse("info", declare, words)
    facts = environment.facts()
    problems = []
    rows = [("python", facts["python"]), *facts["packages"].items()]
    rows.append(("platform", facts["platform"]))
    quota = "" if facts["cpu_quota"] is None else f"; a quota of the time of {facts['cpu_quota']:g}"
    rows.append(("cores", f"{facts['cores']}, {facts['cores_in_affinity_mask']} for this process{quota}"))
    rows.append(
        ("memory", f"{facts['memory_bytes'] / 2**30:.1f} GiB, {environment.available_memory() / 2**30:.1f} GiB free")
    )
    try:
        library = mpi.mpi_library()
        rows.append(("MPI library", library))
    except UserError as error:
        library = None
        problems.append(str(error))
    if launch.SHARED_MEMORY.is_dir():
        rows.append(("shared memory", f"{shutil.disk_usage(launch.SHARED_MEMORY).total >> 20:,} MiB"))
    if library and (fault := launch.shared_memory_fault(library, facts["cores_in_affinity_mask"])):
        problems.append(fault)
    launcher = shutil.which("mpirun") or shutil.which("mpiexec")
    if launcher is None:
        problems.append("there is no mpirun on PATH; load your site's MPI module, or pip install 'hpcdd[mpi]'")
    else:
        version = subprocess.run([launcher, "--version"], capture_output=True, text=True, check=False).stdout
        kind = launch.kind_of(version)
        rows.append(("MPI launcher", f"{launcher} ({kind})"))
        if library is not None and kind != launch.kind_of(library):
            problems.append(
                f"{launcher} is of {kind}, but mpi4py loads {library}; N processes would be N jobs of one rank. "
                "Put the library's own mpirun first on PATH, or set MPI4PY_LIBMPI=/path/to/libmpi.so of the launcher"
            )
    rows.append(("device", _devices()))
    for name, value in rows:
        print(f"{name:<18}{value}")
    for problem in problems:
        print(f"problem: {problem}")
    return UserError.exit_code if problems else 0


def _devices() -> str:
    import torch

    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return ", ".join(gpus) or "cpu only"
