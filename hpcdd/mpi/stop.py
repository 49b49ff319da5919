"""A request to stop: on a signal to one rank or to all, all ranks of the job agree to stop.

The handler only sets a flag. A rank that sees its flag at a step boundary notifies root, and root notifies all others,
by a message on the side channel; no rank sends anything without a request, so the local phase stays without messages.
At the end of each phase all ranks agree.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import StopRequest
from . import launcher
from .communicator import ROOT, Comm
from .runtime import library

if TYPE_CHECKING:
    from mpi4py import MPI

_TAG = 2
_CLOSE = 600.0
"""Seconds before the end of a job's time within which a signal is taken for the warning of it."""
_IMPATIENCE = 1.0
"""Seconds after which one more signal ends this process at once; before, it is the same request on a second way
(a batch system signals the launcher, which passes it on, and the processes too)."""


class Stop:
    """What signals ask for, and the agreement of all ranks on it.

    Args:
        comm: all ranks.
        channel: a communicator of the same ranks, from :meth:`Comm.side_channel`.
        above: of the job, where these ranks are a group of it: it handles the signals, and all groups stop.
    """

    def __init__(self, comm: Comm, channel: MPI.Comm, above: Stop | None = None) -> None:
        self._comm = comm
        self._channel = channel
        self._above = above
        self._about = library().Status()
        self._signum = 0
        self._since = 0.0
        self._phase = ""
        self._forwarded = False
        self._outgoing: list[tuple[MPI.Request, object]] = []

    def listen(self) -> None:
        """Handles :data:`hpcdd.mpi.launcher.SIGNALS` from now on, to the end of the process.

        While root draws the report and MPI ends, a signal must not turn a complete run into one that was killed.
        """
        if self._above is None:
            launcher.handle(launcher.SIGNALS, self._on_signal)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._signum:
            self._signum, self._since = signum, now
        elif now - self._since > _IMPATIENCE:
            os._exit(128 + signum)

    def check(self) -> None:
        """To be called at every step boundary; costs a microsecond.

        Raises:
            StopRequest: this rank got a signal, or another rank's request has arrived.
        """
        self.poll()
        if self._signum:
            raise StopRequest(self._signum, self._phase)

    def poll(self) -> None:
        """Receives other ranks' requests and forwards this rank's own; does not raise."""
        if self._above is not None:
            self._above.poll()
            self._signum = self._signum or self._above._signum
        if self._comm.size > 1 and self._channel.Iprobe(tag=_TAG, status=self._about):
            message = np.zeros(1, np.int64)
            # From that rank: under srun over two nodes MPICH 5 was seen to hang in a receive from any.
            self._channel.Recv(message, source=self._about.Get_source(), tag=_TAG)
            self._signum = self._signum or int(message[0])
        if self._signum and not self._forwarded:
            self._forwarded = True
            self._phase = self._comm.phase_name
            message = np.array([self._signum], np.int64)
            targets = range(1, self._comm.size) if self._comm.rank == ROOT else [ROOT]
            self._outgoing = [(self._channel.Isend(message, dest=rank, tag=_TAG), message) for rank in targets]

    def wanted(self) -> bool:
        """Whether this rank got a signal, or has received another rank's request."""
        return self._signum != 0

    def agree(self, phase: str = "") -> None:
        """Collective, at the end of a phase: all ranks continue, or all stop. Early ranks don't spin.

        Args:
            phase: that ends, for the message; default: where this rank's request was met.

        Raises:
            StopRequest: on all ranks, with one rank's signal, if any rank wants to stop.
        """
        self.poll()
        signum = self._comm.maximum(self._signum, self.poll)
        if signum:
            request = StopRequest(signum, phase or self._phase or self._comm.phase_name)
            request.agreed = self._comm.size
            raise request


def signal_reason(signum: int, environment: Mapping[str, str], now: float) -> str:
    """Why a batch system has sent a signal: the job's time is nearly over, or it has to make room for another.

    Slurm sends SIGTERM for both; the remaining time of the job distinguishes them, where Slurm says when it ends
    (SLURM_JOB_END_TIME). Else SIGUSR1 and SIGUSR2 count as the warning that was asked for (``--signal=USR1@120``).

    Args:
        signum: number of the signal.
        environment: variables of this process.
        now: seconds since 1970.
    """
    if signum == signal.SIGINT:
        return "interrupted"
    if signum == signal.SIGHUP:
        return "the terminal was closed"
    end = environment.get("SLURM_JOB_END_TIME", "")
    if end.isdecimal():
        left = int(end) - now
        if left > _CLOSE:
            return f"preempted or cancelled with {left:,.0f} s left of the job's time"
        return f"time-out with {max(0.0, left):,.0f} s left of the job's time"
    if signum == signal.SIGTERM:
        return "terminated: preempted, cancelled or out of time"
    return "warned that the job's time is nearly up"
