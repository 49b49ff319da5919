"""Seconds of training, without what only looks at it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from ..artifacts.headline_file import CurvePoint
from ..mpi.communicator import Comm
from ..training.status import Hooks, Status
from .single_steps import finish


class Stopwatch:
    """Runs from the beginning on; every rank has its own.

    Args:
        comm: all ranks.
        device: of this rank, which has to have done its work before the time is taken.
    """

    def __init__(self, comm: Comm, device: str) -> None:
        self._comm, self._device = comm, device
        comm.maximum(0)
        self._before, self._since = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds that have counted so far on this rank; not to be read while it is stopped."""
        finish(self._device)
        return self._before + time.perf_counter() - self._since

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Nothing inside the ``with`` block counts; blocks don't nest."""
        self._before = self.seconds
        yield
        self._since = time.perf_counter()

    def synchronize(self) -> None:
        """Collective: waits for the slowest rank, and continues from its seconds."""
        nanoseconds = round(self.seconds * 1e9)
        self._before = self._comm.maximum(nanoseconds) / 1e9
        self._since = time.perf_counter()

    def hooks(self, points: list[CurvePoint]) -> Hooks:
        """For a training that watches the test split in the place of a validation split: evaluations don't count.

        Args:
            points: takes the ends of the epochs, in seconds of this rank.
        """

        def epoch(status: Status) -> None:
            assert status.validation_accuracy is not None
            points.append(CurvePoint(epoch=status.epoch, seconds=self.seconds, accuracy=status.validation_accuracy))

        return Hooks(epoch=epoch, evaluation=self.stopped)


def slowest(comm: Comm, points: list[CurvePoint]) -> list[CurvePoint]:
    """Collective: the same epochs, in seconds of the rank that took longest; ranks without points don't count."""
    everyone = [of_rank for of_rank in comm.allgather_object(points) if of_rank]
    return [
        max((of_rank[number] for of_rank in everyone), key=lambda point: point.seconds)
        for number in range(len(everyone[0]))
    ]
