"""The MPI library: the one place that imports mpi4py, how a rank waits, and how it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from ..core.errors import UserError

_LAUNCHERS = ("mpirun", "mpiexec", "prterun", "prted", "prte", "orterun", "orted")
_LAUNCHER_TIMEOUT = 5.0
"""Seconds that a launcher gets to end the job."""
_ABORT_TIMEOUT = 3.0
"""Seconds after which a process that could not abort the job ends itself."""


def is_loss(error: BaseException) -> bool:
    """Whether an exception says that a rank has died (in fault-tolerant mode; without it the job dies, too)."""
    MPI = library()
    lost = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED)
    return isinstance(error, MPI.Exception) and error.Get_error_class() in lost


def takes_gpu_memory() -> bool | None:
    """Whether the MPI library says that it takes pointers into a GPU's memory; None where it does not say."""
    symbols = ctypes.CDLL(library().__file__)  # mpi4py's own module: what it is linked with is found through it
    if hasattr(symbols, "MPIX_Query_cuda_support"):
        if symbols.MPIX_Query_cuda_support() == 1:
            return True
        if not hasattr(symbols, "MPIX_GPU_query_support"):
            return False
    if hasattr(symbols, "MPIX_GPU_query_support"):
        supported = ctypes.c_int(0)
        symbols.MPIX_GPU_query_support(_MPICH_CUDA, ctypes.byref(supported))
        return bool(supported.value)
    return None


_MPICH_CUDA = 0
"""MPIX_GPU_SUPPORT_CUDA in MPICH's mpi.h."""


def set_finalize_timeout(seconds: float, what: str, exit_code: int) -> None:
    """Makes all ranks of the job end together, and limits how long this process waits for the others: one may hang.

    Args:
        seconds: from the end of this process's work.
        what: printed then.
        exit_code: of this process then; its launcher ends the others.
    """
    FINALIZE_TIMEOUTS.append((seconds, what, exit_code))


FINALIZE_TIMEOUTS: list[tuple[float, str, int]] = []
"""All that were set; the last one applies."""


def finalize() -> None:
    """Ends MPI, see :func:`set_finalize_timeout`."""
    MPI = library()
    if FINALIZE_TIMEOUTS:
        seconds, what, exit_code = FINALIZE_TIMEOUTS[-1]

        def give_up() -> None:
            sys.stderr.write(f"hpcdd: {what}\n")
            sys.stderr.flush()
            os._exit(exit_code)

        timer = threading.Timer(seconds, give_up)
        timer.daemon = True
        timer.start()
        sleep_until(MPI.COMM_WORLD.Ibarrier().Test)
        MPI.Finalize()
        timer.cancel()
    else:
        MPI.Finalize()


def is_fault_tolerant() -> bool:
    """Whether the job was started in Open MPI's fault-tolerant mode, where the other ranks survive the death of one."""
    return os.environ.get("OMPI_MCA_mpi_ft_enable") in ("1", "true")  # noqa: SIM112 - its name


def abort(exit_code: int, revoke: Callable[[], None]) -> None:
    """Ends all ranks of the job at once, from any thread; does not return.

    Args:
        exit_code: of the job.
        revoke: ends the use of all communicators, in fault-tolerant mode, where MPI_Abort would end one rank only.
    """
    if is_fault_tolerant():
        _stop_launcher()
        revoke()
        time.sleep(_LAUNCHER_TIMEOUT)
        os._exit(exit_code)
    timer = threading.Timer(_ABORT_TIMEOUT, lambda: os._exit(exit_code))  # another thread may hang within MPI
    timer.daemon = True
    timer.start()
    library().COMM_WORLD.Abort(exit_code)


def _stop_launcher() -> None:
    """Asks the launcher of this process to end the job; does nothing where it is gone."""
    for process in psutil.Process().parents():
        if process.name() in _LAUNCHERS:
            with contextlib.suppress(psutil.Error):
                process.terminate()
            return


def mpi_library() -> str:
    """First line of what the MPI library says of itself.

    Raises:
        UserError: no MPI library.
    """
    return str(library().Get_library_version()).rstrip("\0").strip().splitlines()[0]


def library() -> Any:
    """The module mpi4py.MPI, not initialised by its import, so that a wrong launcher can be refused beforehand."""
    import mpi4py

    mpi4py.rc.initialize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"mpi4py finds no MPI library ({str(error).splitlines()[0]}); load your site's MPI module, "
            "or install one with `pip install '.[mpi]'` in a checkout of hpcdd"
        ) from error
    return MPI


def sleep_until(done: Callable[[], bool], poll: Callable[[], None] = lambda: None, longest: float = 10e-3) -> None:
    """Waits until ``done`` (say a request's ``Test``); sleeps between tests, 50 us at first, ``longest`` at most."""
    pause = 50e-6
    while not done():
        poll()
        time.sleep(pause)
        pause = min(2 * pause, longest)
