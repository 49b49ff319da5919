"""Ranks that are threads of one process: what several ranks do together, without mpirun and in one debugger."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from hpcdd.mpi.traffic import Ledger

from .waiting import LIMIT

T = TypeVar("T")
Array = np.ndarray[Any, Any]


class ThreadComm:
    """The part of ``Comm`` that training and attribution use; sums are in the order of the ranks."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, slots: list[Any]) -> None:
        self.rank, self.size = rank, size
        self.ledger = Ledger(rank)
        self._barrier, self._slots = barrier, slots

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    @property
    def phase_name(self) -> str:
        return self.ledger.phase_name

    @property
    def calls(self) -> int:
        """Messages that this rank has taken part in."""
        return sum(traffic.calls for traffic in self.ledger.traffic.values())

    def allgather_object(self, value: T) -> list[T]:
        return self._exchange("allgather", value, 0)

    def allgather(self, part: Any, whole: Any) -> None:
        parts = self._exchange("Allgather", np.asarray(part).copy(), whole.nbytes)
        np.asarray(whole)[...] = np.stack(parts).reshape(whole.shape)

    def gather(self, part: Array, counts: list[int]) -> Array | None:
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

    def maximum(self, value: int, poll: Callable[[], None] = lambda: None) -> int:
        return max(self._exchange("Iallreduce", value, 16))

    def _exchange(self, call: str, value: T, size: int) -> list[T]:
        with self.ledger.counted(call, size):
            self._slots[self.rank] = value
            self._barrier.wait()
            values = list(self._slots)
            self._barrier.wait()
        return values


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
