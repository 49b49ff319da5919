"""Ranks that are threads of one process: what several ranks do together, without mpirun and in one debugger."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from hpcdd.core.environment import ColocatedRanks, Startup
from hpcdd.mpi.communicator import ROOT, Comm
from hpcdd.mpi.traffic import Ledger

from .waiting import LIMIT

T = TypeVar("T")
Array = np.ndarray[Any, Any]


class ThreadComm(Comm):
    """A ``Comm`` without MPI; sums are in the order of the ranks. What is built on messages (agreements) is Comm's own.

    Every rank takes part in each of its messages, also in :meth:`to_root`.
    """

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, slots: list[Any]) -> None:
        self.rank, self.size = rank, size
        self.ledger, self.oversubscribed, self.family = Ledger(rank), False, []
        self.diminished, self.startup, self.colocated = False, Startup(from_now=True), ColocatedRanks()
        self._barrier, self._slots = barrier, slots

    @property
    def calls(self) -> int:
        """Messages that this rank has taken part in."""
        return sum(traffic.calls for traffic in self.ledger.traffic.values())

    def allgather_object(self, value: T) -> list[T]:
        return self._exchange("allgather", value, 0)

    def gather_object(self, value: T) -> list[T] | None:
        values = self._exchange("gather", value, 0)
        return values if self.is_root else None

    def broadcast_object(self, value: T, root: int = ROOT) -> T:
        return self._exchange("bcast", value, 0)[root]

    def allgather(self, part: Any, whole: Any) -> None:
        parts = self._exchange("Allgather", np.asarray(part).copy(), whole.nbytes)
        np.asarray(whole)[...] = np.stack(parts).reshape(whole.shape)

    def gather(self, part: Array, counts: Sequence[int]) -> Array | None:
        parts = self._exchange("Gatherv", part.reshape(-1).copy(), sum(counts) * part.itemsize)
        assert [part.size for part in parts] == list(counts)
        return np.concatenate(parts) if self.is_root else None

    def sum(self, values: Any, result: Any) -> None:
        self.finish_sum((np.asarray(values), np.asarray(result)))

    def start_sum(self, values: Array, result: Array) -> tuple[Array, Array]:
        assert isinstance(values, np.ndarray), "nothing nonblocking in a GPU's memory"
        return values, result

    def finish_sum(self, request: tuple[Array, Array]) -> None:
        values, result = request
        parts = self._exchange("Allreduce", values.copy(), 2 * values.nbytes)
        assert {(part.shape, part.dtype) for part in parts} == {(result.shape, result.dtype)}
        result[...] = parts[0]
        for part in parts[1:]:
            result += part

    def broadcast(self, array: Array, root: int = 0) -> None:
        array[...] = self._exchange("Ibcast", array.copy(), array.nbytes)[root]

    def to_root(self, array: Array, source: int) -> None:
        parts = self._exchange("Send", array.copy(), array.nbytes)
        if self.is_root and source != ROOT:
            array[...] = parts[source]

    def maximum(self, value: int, poll: Callable[[], None] = lambda: None) -> int:
        return max(self._exchange("Iallreduce", value, 16))

    def _exchange(self, call: str, value: T, size: int) -> list[T]:
        with self.ledger.counted(call, size):
            self._slots[self.rank] = value
            self._barrier.wait()
            values = list(self._slots)
            self._barrier.wait()
        return values


class ThreadChannel:
    """The part of an mpi4py communicator that ``Stop`` uses.

    Args:
        rank: of the thread.
        letters: by rank what has been sent to it and not been received: source and content.
    """

    def __init__(self, rank: int, letters: Sequence[deque[tuple[int, Array]]]) -> None:
        self._rank, self._letters = rank, letters

    def Iprobe(self, tag: int, status: Any) -> bool:  # noqa: N802 - mpi4py's names
        if self._letters[self._rank]:
            status.Set_source(self._letters[self._rank][0][0])
        return bool(self._letters[self._rank])

    def Recv(self, buffer: Array, source: int, tag: int) -> None:  # noqa: N802
        sender, content = self._letters[self._rank].popleft()
        assert sender == source
        buffer[...] = content

    def Isend(self, buffer: Array, dest: int, tag: int) -> None:  # noqa: N802
        self._letters[dest].append((self._rank, buffer.copy()))


def on_ranks(size: int, work: Callable[[ThreadComm], T]) -> list[T]:
    """Runs ``work`` on every rank at once: its results in rank order, or the failure of one of them.

    The ranks share torch's global random state, so that work which draws from it does not belong here.
    """
    barrier, slots = threading.Barrier(size, timeout=LIMIT), [None] * size

    def one(rank: int) -> T:
        try:
            return work(ThreadComm(rank, size, barrier, slots))
        except BaseException:
            barrier.abort()  # nobody waits for this rank
            raise

    with ThreadPoolExecutor(size) as pool:
        ranks = [pool.submit(one, rank) for rank in range(size)]
    failures = [failure for rank in ranks if (failure := rank.exception()) is not None]
    for failure in sorted(failures, key=lambda failure: isinstance(failure, threading.BrokenBarrierError)):
        raise failure  # where all are broken barriers, ranks have taken part in different messages
    return [rank.result() for rank in ranks]
