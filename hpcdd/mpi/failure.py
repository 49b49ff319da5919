"""An exception on one rank only: it is printed, and ends the whole job, so that no rank waits for ever."""

from __future__ import annotations

import signal
import socket
import sys
import time
import traceback

from ..core.errors import DivergedError, UserError
from ..core.texts import printable_lines
from .communicator import Comm

_DEFERENCE = 2.0
"""Seconds in which other ranks that may print the same, or more, can end the job first."""


def fail(comm: Comm, error: BaseException) -> None:
    """Prints the error with the number and host of the rank, and aborts the job; does not return."""
    code, turn = 1, 0
    try:
        where = f"hpcdd: rank {comm.rank} of {comm.size} on {socket.gethostname()}"
        if isinstance(error, UserError | DivergedError):
            text, code = f"{where}: {error}\n", error.exit_code
            if isinstance(error, DivergedError):  # all ranks of one training notice it at the same step
                turn = (not comm.is_root) + error.heard
        elif isinstance(error, KeyboardInterrupt):  # before hpcdd.mpi.stop handles it; Ctrl-C is for all ranks
            text, code, turn = f"{where}: interrupted\n", 128 + signal.SIGINT, not comm.is_root
        else:
            text = f"{where} failed in phase {comm.phase_name}\n{''.join(traceback.format_exception(error))}"
        time.sleep(turn * _DEFERENCE)
        sys.stderr.write(printable_lines(text))  # at once, so that lines of several ranks don't mix
        sys.stderr.flush()
        time.sleep(0.5)  # MPICH's mpirun may end before it has passed on what an aborting rank printed last
    finally:
        comm.abort(code)
