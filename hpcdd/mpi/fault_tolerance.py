"""Continuing without ranks that have died, in Open MPI's fault-tolerant mode (ULFM): `mpirun --with-ft ulfm`.

A rank that is killed shows on the others as an error of the next MPI call. They revoke all communicators, so that
no rank waits for ever, shrink them to the surviving ranks, and continue as a smaller job from the checkpoints, since a
run can be resumed on any number of ranks.

Findings with Open MPI 5.0.11 that shape this file: an agreement must be polled, for MPI_Comm_shrink spins;
MPI_Comm_ishrink does not work; MPI_Abort of one rank does not end the job; MPI_Finalize may hang after several losses.
"""

from __future__ import annotations

import contextlib
import os
import sys

import numpy as np

from ..core.errors import UserError
from .communicator import Comm
from .runtime import is_fault_tolerant, is_loss, sleep_until


def check() -> None:
    """Refuses to begin where losses can't be survived.

    Raises:
        UserError: the job was not started in fault-tolerant mode.
    """
    if not is_fault_tolerant():
        raise UserError(
            "run.survive is true, but this job can't survive the loss of a rank; "
            "start it with Open MPI 5 as `mpirun --with-ft ulfm -n N ...`, or set run.survive false"
        )


def regroup(comm: Comm) -> list[int]:
    """Collective over the surviving ranks: ``comm`` becomes their communicator; all that was split off is void.

    Args:
        comm: all ranks of the job so far.

    Returns:
        The numbers, so far, of the ranks that are lost.
    """
    comm.revoke()
    old, survivors = comm.mpi, comm.mpi
    while True:
        _agree(survivors, True)
        survivors = survivors.Shrink()
        if _agree(survivors, True):
            break
        survivors.Revoke()
    gone = type(old.Get_group()).Difference(old.Get_group(), survivors.Get_group())
    lost = type(gone).Translate_ranks(gone, list(range(gone.Get_size())), old.Get_group())
    comm.become(survivors)
    return [int(rank) for rank in lost]


def leave(comm: Comm, exit_code: int) -> None:
    """Collective: ends this process after a loss, without MPI_Finalize; does not return."""
    with contextlib.suppress(Exception):  # the last that could be lost have nothing left to do
        _agree(comm.mpi, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _agree(mpi: object, fine: bool) -> bool:
    """Whether no more ranks are lost and all are ``fine``; the same on all surviving ranks. Early ranks don't spin."""
    flag = np.array([fine], np.int32)
    mpi.Ack_failed()  # type: ignore[attr-defined]  # what is known would raise
    try:
        sleep_until(mpi.Iagree(flag).Test)  # type: ignore[attr-defined]
    except Exception as error:
        if not is_loss(error):
            raise
        return False
    return bool(flag[0])
