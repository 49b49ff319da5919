"""Going on without ranks that have died, under Open MPI's fault-tolerant mode (ULFM): `mpirun --with-ft ulfm`.

A rank that is killed shows on the others as an error of the next MPI call. They revoke all communicators, so that
nobody waits for ever, shrink them to those who live, and go on as a smaller job from the checkpoints: that is all that
it takes, since a run can be resumed on any number of ranks.

What was found with Open MPI 5.0.11 and shapes this file: an agreement must be polled, for MPI_Comm_shrink spins;
MPI_Comm_ishrink does not work; MPI_Abort of one rank does not end the job; MPI_Finalize may hang after several losses.
"""

from __future__ import annotations

import contextlib
import os
import sys

import numpy as np

from ..core.errors import UserError
from .communicator import Comm
from .library import is_fault_tolerant, is_loss, sleep_until


def check() -> None:
    """Refuses to begin where losses can't be survived.

    Raises:
        UserError: the job was not started in the fault-tolerant mode.
    """
    if not is_fault_tolerant():
        raise UserError(
            "run.survive is true, but this job can't survive the loss of a rank; "
            "start it with Open MPI 5 as `mpirun --with-ft ulfm -n N ...`, or set run.survive false"
        )


def regroup(comm: Comm) -> list[int]:
    """Collective over those who live: ``comm`` becomes the communicator of them; all that was split off is void.

    Args:
        comm: all ranks of the job so far.

    Returns:
        The numbers, so far, of the ranks that are lost.
    """
    comm.revoke()
    old, found = comm.mpi, comm.mpi
    while True:
        _agree(found, True)
        found = found.Shrink()
        if _agree(found, True):
            break
        found.Revoke()
    gone = type(old.Get_group()).Difference(old.Get_group(), found.Get_group())
    lost = type(gone).Translate_ranks(gone, list(range(gone.Get_size())), old.Get_group())
    comm.become(found)
    return [int(rank) for rank in lost]


def leave(comm: Comm, exit_code: int) -> None:
    """Collective: ends this process after a loss, without MPI_Finalize; does not return."""
    with contextlib.suppress(Exception):  # the last that could be lost have nothing left to do
        _agree(comm.mpi, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _agree(mpi: object, fine: bool) -> bool:
    """Whether all are fine and nobody is newly lost; the same on all who live. Ranks that come early sleep."""
    flag = np.array([fine], np.int32)
    mpi.Ack_failed()  # type: ignore[attr-defined]  # what is known would raise
    try:
        sleep_until(mpi.Iagree(flag).Test)  # type: ignore[attr-defined]
    except Exception as error:
        if not is_loss(error):
            raise
        return False
    return bool(flag[0])
