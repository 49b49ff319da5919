"""Statuses on their way to root: small messages on the side channel that no one waits for while he trains.

A rank has at most one message on its way. What is due meanwhile is either dropped (a status: the next one says
more) or kept until the way is free (the end of an epoch: it belongs into metrics.jsonl). The traffic is counted
under ``telemetry``, apart from that of the phases.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...mpi.communicator import ROOT, Comm
from ...mpi.library import sleep_until
from ...mpi.traffic import Traffic
from ...training.status import Status

if TYPE_CHECKING:
    from mpi4py import MPI

_TAG = 1
_RANKS_PER_SECOND = 400
"""Messages per second that root takes in at most; with more ranks each of them reports less often."""


@dataclass(frozen=True)
class _Message:
    earlier: tuple[Status, ...]
    epochs: tuple[Status, ...]
    status: Status | None
    last: bool


class Sink(Protocol):
    """On root, takes every status in."""

    def __call__(self, status: Status, *, end_of_epoch: bool, earlier: bool = False) -> None:
        """Args.

        status: of any rank.
        end_of_epoch: whether it belongs into metrics.jsonl.
        earlier: whether that epoch lies in an earlier job.
        """


class Telemetry:
    """The sending side on every rank, and the receiving side on root.

    Args:
        comm: all ranks.
        channel: a communicator of the same ranks, from :meth:`Comm.side_channel`.
        sink: see there.
        interval: seconds between two statuses of one rank; ``inf`` if nobody looks at them. Ends of epochs are sent
            all the same.
    """

    def __init__(self, comm: Comm, channel: MPI.Comm, sink: Sink, interval: float) -> None:
        self._comm = comm
        self._channel = channel
        self._sink = sink
        self._interval = max(interval, comm.size / _RANKS_PER_SECOND)
        self._next = time.monotonic() + interval
        self._earlier: list[Status] = []
        self._epochs: list[Status] = []
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
            self._sink(status, end_of_epoch=False)
        elif self._way_is_free():
            self._send(status)

    def epoch(self, status: Status) -> None:
        """Passes the end of an epoch on, at the latest with :meth:`finish`."""
        if self._comm.is_root:
            self._sink(status, end_of_epoch=True)
            return
        self._epochs.append(status)
        if self._way_is_free():
            self._send()

    def history(self, statuses: Sequence[Status]) -> None:
        """Passes the ends of epochs of earlier jobs on; likewise."""
        if self._comm.is_root:
            for status in statuses:
                self._sink(status, end_of_epoch=True, earlier=True)
            return
        self._earlier += statuses
        if self._way_is_free():
            self._send()

    def poll(self) -> None:
        """On root, takes in what has arrived; elsewhere does nothing."""
        if self._comm.is_root:
            while self._unfinished and self._channel.Iprobe(tag=_TAG):
                self._receive()

    def finish(self, poll: Callable[[], None]) -> None:
        """Collective, at the end of a phase: root has everything when it returns. Ranks that wait sleep.

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

    def _way_is_free(self) -> bool:
        if self._request is not None and self._request.Test():
            self._request = None
        return self._request is None

    def _send(self, status: Status | None = None, *, last: bool = False) -> None:
        message = _Message(tuple(self._earlier), tuple(self._epochs), status, last)
        buffer = np.frombuffer(pickle.dumps(message), np.uint8)
        with self._comm.phase("telemetry"), self._comm.counted("Isend", buffer.nbytes):
            self._request, self._buffer = self._channel.Isend(buffer, dest=ROOT, tag=_TAG), buffer
        self._earlier.clear()
        self._epochs.clear()

    def _receive(self) -> None:
        with self._comm.phase("telemetry"):
            buffer = self._comm.receive_bytes(self._channel, _TAG)
        message: _Message = pickle.loads(buffer.tobytes())
        for status in message.earlier:
            self._sink(status, end_of_epoch=True, earlier=True)
        for status in message.epochs:
            self._sink(status, end_of_epoch=True)
        if message.status is not None:
            self._sink(message.status, end_of_epoch=False)
        self._unfinished -= message.last
