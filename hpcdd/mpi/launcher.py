"""What the launcher (mpirun, srun, a shell) has set in a process's environment, known before MPI is started.

With it N processes that were meant to be one job but came up as N jobs of one rank are refused, commands
that need no MPI print once under mpirun, and nohup is respected.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from ..core.errors import UserError


@dataclass(frozen=True)
class Launch:
    """One process as its launcher sees it.

    Attributes:
        kind: ``"mpich"`` (hydra and other PMI launchers), ``"openmpi"``, ``"slurm"`` or ``"none"``.
        rank: number of this process in the launch.
        size: number of processes of the launch.
        by_srun: whether the launcher of kind ``"mpich"`` is srun, which offers PMI too (``--mpi=pmi2``).
        local_rank: number of this process among those of the launch on this host; ``rank`` where that is not known.
        local_size: number of these; 1 where that is not known.
    """

    kind: str
    rank: int
    size: int
    by_srun: bool = False
    local_rank: int = 0
    local_size: int = 1


# (kind, rank, size): Open MPI first, because srun's own variables stand next to those of an mpirun that it feeds.
_VARIABLES = (
    ("openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("mpich", "PMI_RANK", "PMI_SIZE"),
    ("slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


def from_environment(environment: Mapping[str, str] | None = None) -> Launch:
    """Reads the launcher's variables; a process that nothing launched is rank 0 of 1."""
    environment = os.environ if environment is None else environment
    launches = [
        Launch(kind, int(environment[rank]), int(environment[size]))
        for kind, rank, size in _VARIABLES
        if environment.get(rank, "").isdecimal() and environment.get(size, "").isdecimal()
    ]
    if not launches:
        return Launch("none", 0, 1)
    first, last = launches[0], launches[-1]
    by_srun = first.kind == "mpich" and last == replace(first, kind="slurm")
    local = _local(environment, by_srun or first.kind == "slurm") or (first.rank, 1)
    return replace(first, by_srun=by_srun, local_rank=local[0], local_size=local[1])


def _local(environment: Mapping[str, str], by_srun: bool) -> tuple[int, int] | None:
    """Number among the processes on this host, and how many these are; None where the launcher does not say."""
    rank, size = "SLURM_LOCALID", ""
    if by_srun:  # tasks of each node, such as 4(x2),3
        entries = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
        tasks = [tasks for tasks, times in entries for _ in range(int(times or 1))]
        node = environment.get("SLURM_NODEID", "")
        size = tasks[int(node)] if node.isdecimal() and int(node) < len(tasks) else ""
    else:
        names = (("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"), ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"))
        rank, size = next((pair for pair in names if pair[0] in environment), ("", ""))
        size = environment.get(size, "")
    number = environment.get(rank, "")
    return (int(number), int(size)) if number.isdecimal() and size.isdecimal() else None


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a process: Ctrl-C, a batch system or kill, and a terminal that is closed."""
SIGNALS = (*ENDING, signal.SIGUSR1, signal.SIGUSR2)
"""These, and those by which batch systems warn a job on request."""


def handle(signals: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Has ``handler`` called at ``signals``, except at a SIGHUP that is ignored because of nohup.

    Returns:
        By signal what was done before.
    """
    handled = [s for s in signals if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN]
    return {signum: signal.signal(signum, handler) for signum in handled}


def ignore(signals: Iterable[int]) -> None:
    """Ignores the signals that are handled; at the very end, when Python takes its handlers away."""
    for signum in signals:
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_IGN)


def kind_of(version: str) -> str:
    """``"openmpi"`` or ``"mpich"`` (and its relatives), from what a library or an mpirun says of itself."""
    return (
        "openmpi"
        if "open mpi" in version.lower() or "open-mpi" in version.lower() or "prte" in version.lower()
        else "mpich"
    )


def check_library(launch: Launch, library_version: str) -> None:
    """Refuses an MPI library that can't talk to the launcher; to be called before MPI is initialised.

    Args:
        launch: from :func:`from_environment`.
        library_version: text of ``MPI_Get_library_version``.

    Raises:
        UserError: mpirun of MPICH with the library of Open MPI, or the reverse.
    """
    library = kind_of(library_version)
    if launch.size > 1 and launch.kind in ("openmpi", "mpich") and launch.kind != library:
        raise UserError(_mismatch(launch, library_version))


SHARED_MEMORY = Path("/dev/shm")
_SHARED_BYTES = 6 << 20
"""That a rank of MPICH takes of it: 5.15 MiB were measured with MPICH 5.0.2, 1 to 16 ranks, MPI_Init and a training."""


def shared_memory_fault(library_version: str, ranks: int) -> str | None:
    """What is wrong where that many ranks of one host find too little shared memory; None where nothing is.

    MPICH dies of a segmentation fault then. Containers have 64 MiB unless another size is asked for. Open MPI takes 72
    KiB for each rank (4.1.4, measured), and says itself what it lacks.

    Args:
        library_version: text of ``MPI_Get_library_version``.
        ranks: on this host.
    """
    if not library_version.startswith("MPICH Version") or not SHARED_MEMORY.is_dir():
        return None
    # The whole of it: what is free already shrinks while other ranks of the job start.
    there, needed = shutil.disk_usage(SHARED_MEMORY).total, ranks * _SHARED_BYTES
    if there >= needed:
        return None
    return (
        f"{SHARED_MEMORY} on {socket.gethostname()} has {there >> 20} MiB, but {ranks} rank{'s' * (ranks > 1)} of "
        f"MPICH need {needed >> 20} MiB of shared memory; start the container with more (`docker run --shm-size=1g "
        f"...`; apptainer shares the host's), or at most {there // _SHARED_BYTES} ranks on this host"
    )


def check_size(launch: Launch, library_version: str, size: int) -> None:
    """Refuses N jobs of one rank where one job of N ranks was meant; to be called once MPI is initialised.

    Args:
        launch: from :func:`from_environment`.
        library_version: text of ``MPI_Get_library_version``.
        size: number of ranks of COMM_WORLD.

    Raises:
        UserError: the launcher started more processes than MPI_COMM_WORLD has.
    """
    if size == 1 and launch.size > 1:
        raise UserError(_mismatch(launch, library_version))


def choose_network(launch: Launch, library_version: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Has the MPICH of the extra ``[mpi]`` meet by libfabric under srun; to be called before MPI is initialised.

    Its UCX sends its address by PMI with whatever follows it in memory, 4 KiB in all (seen in MPICH 5.0.2). Slurm
    truncates lines after 1,024 characters. Whether they are longer is chance; where they are, the ranks wait for ever
    in MPI_Init. libfabric's address is 16 bytes. A choice of the user's is not changed.

    Args:
        launch: from :func:`from_environment`.
        library_version: text of ``MPI_Get_library_version``.
        environment: of this process; MPIR_CVAR_CH4_NETMOD may be added.
    """
    chosen = any(name.endswith("_CH4_NETMOD") for name in environment)  # after MPIR_CVAR, MPIR_PARAM or MPICH
    if launch.by_srun and "ch4:ucx ofi" in library_version and not chosen:
        environment["MPIR_CVAR_CH4_NETMOD"] = "ofi"


def _mismatch(launch: Launch, library_version: str) -> str:
    library = library_version.splitlines()[0].split(",")[0].rstrip("\0").strip()
    by_srun = launch.by_srun or launch.kind == "slurm"
    launcher = "srun" if by_srun else {"openmpi": "mpirun of Open MPI", "mpich": "mpirun of MPICH (PMI)"}[launch.kind]
    fix = (
        "select the protocol of the library: `srun --mpi=pmi2` for MPICH, `srun --mpi=pmix` for Open MPI"
        if by_srun
        else "use this library's own mpirun (`which -a mpirun`), or point mpi4py to the launcher's "
        "library with MPI4PY_LIBMPI=/path/to/libmpi.so"
    )
    return (
        f"{launcher} started {launch.size} processes, but they can't connect: mpi4py has loaded {library}, so each "
        f"would train as a job of one rank. To make them one job, {fix}"
    )
