"""``hpcdd info``: what is installed here, and any problems with it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from ..core import environment
from ..core.errors import UserError
from ..mpi import launcher, runtime
from .parser import Parser, parse


def declare(parser: Parser) -> None:
    """Says what the command does; it has no options."""
    parser.describe(
        "Shows what is installed here, and any problems with it: versions, MPI library and launcher, devices, memory.",
        "hpcdd info",
    )


def run_without_mpi(arguments: Sequence[str]) -> int:
    """Prints what there is.

    Returns:
        0, or 2 if training could not start here.
    """
    parse("info", declare, arguments)
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
        version_of_mpi = runtime.mpi_library()
        rows.append(("MPI library", version_of_mpi))
    except UserError as error:
        version_of_mpi = None
        problems.append(str(error))
    if launcher.SHARED_MEMORY.is_dir():
        rows.append(("shared memory", f"{shutil.disk_usage(launcher.SHARED_MEMORY).total >> 20:,} MiB"))
    if version_of_mpi and (fault := launcher.shared_memory_fault(version_of_mpi, facts["cores_in_affinity_mask"])):
        problems.append(fault)
    mpirun = shutil.which("mpirun") or shutil.which("mpiexec")
    if mpirun is None:
        problems.append(
            "mpirun is not on PATH; load your site's MPI module, or run `pip install '.[mpi]'` in a checkout of hpcdd"
        )
    else:
        version = subprocess.run([mpirun, "--version"], capture_output=True, text=True, check=False).stdout
        kind = launcher.kind_of(version)
        rows.append(("MPI launcher", f"{mpirun} ({kind})"))
        if version_of_mpi is not None and kind != launcher.kind_of(version_of_mpi):
            problems.append(
                f"{mpirun} belongs to {kind}, but mpi4py loads {version_of_mpi}, so N processes would become N jobs of "
                "one rank each. Put the library's own mpirun first on PATH, or set MPI4PY_LIBMPI=/path/to/libmpi.so of "
                "the launcher"
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
