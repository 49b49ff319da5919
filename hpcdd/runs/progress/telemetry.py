"""Statuses on their way to root: small messages on the side channel that no rank waits for while it trains.

A rank has at most one message on its way. What is due meanwhile is either dropped (a status: the next one says
more) or queued until the message has arrived (the end of an epoch: it belongs into metrics.jsonl). The traffic is
counted under ``telemetry``, separately from that of the phases.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...mpi.communicator import ROOT, Comm
from ...mpi.runtime import library, sleep_until
from ...mpi.traffic import Traffic
from ...training.status import Status

if TYPE_CHECKING:
    from mpi4py import MPI

_TAG = 1
_RANKS_PER_SECOND = 400
"""Messages per second that root receives at most; with more ranks each of them reports less often."""


Moment = Literal["within epoch", "end of epoch", "earlier job"]
"""When a status was measured; ``earlier job``: at the end of an epoch there."""
Sink = Callable[[Status, Moment], None]
"""On root, receives every status of any rank."""


@dataclass(frozen=True)
class _Message:
    statuses: tuple[tuple[Status, Moment], ...]
    last: bool


class Telemetry:
    """The sending side on every rank, and the receiving side on root.

    Args:
        comm: all ranks.
        channel: a communicator of the same ranks, from :meth:`Comm.side_channel`.
        sink: called on root.
        interval: seconds between two statuses of one rank; ``inf`` if nobody looks at them. Ends of epochs are sent
            all the same.
    """

    def __init__(self, comm: Comm, channel: MPI.Comm, sink: Sink, interval: float) -> None:
        self._comm = comm
        self._channel = channel
        self._sink = sink
        self._interval = max(interval, comm.size / _RANKS_PER_SECOND)
        self._next = time.monotonic() + self._interval
        self._queue: list[tuple[Status, Moment]] = []
        self._request: MPI.Request | None = None
        self._buffer: object = None  # must live as long as the request
        self._unfinished = comm.size - 1
        comm.traffic.setdefault("telemetry", Traffic())

    def due(self) -> bool:
        """Whether a status is wanted now."""
        return time.monotonic() >= self._next

    def status(self, status: Status) -> None:
        """Passes a status on, or drops it if the one before is still on its way."""
        self._next = time.monotonic() + self._interval
        if self._comm.is_root:
            self._sink(status, "within epoch")
        elif self._can_send():
            self._queue.append((status, "within epoch"))
            self._send()

    def epochs(self, statuses: Sequence[Status], *, earlier: bool = False) -> None:
        """Passes the ends of epochs on, at the latest with :meth:`finish`.

        Args:
            statuses: of these epochs.
            earlier: whether they lie in earlier jobs.
        """
        moment: Moment = "earlier job" if earlier else "end of epoch"
        if self._comm.is_root:
            for status in statuses:
                self._sink(status, moment)
            return
        self._queue += [(status, moment) for status in statuses]
        if self._can_send():
            self._send()

    def poll(self) -> None:
        """On root, receives what has arrived; elsewhere does nothing."""
        if self._comm.is_root:
            while self._unfinished and self._channel.Iprobe(tag=_TAG):
                self._receive()

    def finish(self, poll: Callable[[], None]) -> None:
        """Collective, at the end of a phase: root has everything when it returns. Ranks wait without spinning.

        Args:
            poll: called now and then while this rank waits.
        """
        if self._comm.is_root:

            def all_are_over() -> bool:
                self.poll()
                return not self._unfinished

            with self._comm.ledger.waiting():
                sleep_until(all_are_over, poll)
            self._unfinished = self._comm.size - 1
        else:
            with self._comm.ledger.waiting():
                if self._request is not None:
                    sleep_until(self._request.Test, poll)
                self._send(last=True)
                assert self._request is not None
                sleep_until(self._request.Test, poll)
            self._request = None

    def _can_send(self) -> bool:
        if self._request is not None and self._request.Test():
            self._request = None
        return self._request is None

    def _send(self, *, last: bool = False) -> None:
        buffer = np.frombuffer(pickle.dumps(_Message(tuple(self._queue), last)), np.uint8)
        with self._comm.phase("telemetry"), self._comm.counted("Isend", buffer.nbytes):
            self._request, self._buffer = self._channel.Isend(buffer, dest=ROOT, tag=_TAG), buffer
        self._queue.clear()

    def _receive(self) -> None:
        about = library().Status()
        self._channel.Probe(tag=_TAG, status=about)  # it is there, of any length
        buffer = np.empty(about.Get_count(library().BYTE), np.uint8)
        with self._comm.phase("telemetry"), self._comm.counted("Recv", buffer.nbytes):
            self._channel.Recv(buffer, source=about.Get_source(), tag=_TAG)
        message: _Message = pickle.loads(buffer.tobytes())
        for status, moment in message.statuses:
            self._sink(status, moment)
        self._unfinished -= message.last
