"""Two loops that alternate in one process: one of them is a training, at whose step boundaries the other one works."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..config.schema import Config
from ..core.errors import StopRequest
from ..parallel.batch_shards import BatchSharing
from ..phases.local import train_cnns
from ..training.status import Hooks
from ..training.trainer import Member


@dataclass
class Alternation:
    """Measures steps of one loop from their boundaries; after some of them, another loop does as many.

    Attributes:
        steps: of each loop in a round.
        rounds: after which the first loop is stopped.
        wait: until the device has done its work.
        other: one step of the other loop.
        seconds, others: of a step, by round.
    """

    steps: int
    rounds: int
    wait: Callable[[], None]
    other: Callable[[], object]
    seconds: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    _done: int = -1
    _begun: float = 0.0

    def boundary(self) -> None:
        """To be called before each step.

        Raises:
            StopRequest: all rounds are measured.
        """
        self._done += 1
        if self._done and self._done % self.steps == 0:
            self.wait()
            self.seconds.append((time.perf_counter() - self._begun) / self.steps)
            self.others.append(self._others())
            if len(self.seconds) == self.rounds:
                raise StopRequest(signal.SIGTERM, "bench")
        if self._done % self.steps == 0:
            self._begun = time.perf_counter()

    def _others(self) -> float:
        start = time.perf_counter()
        for _ in range(self.steps):
            self.other()
        self.wait()
        return (time.perf_counter() - start) / self.steps


def train_alternating(alternation: Alternation, config: Config, members: Sequence[Member], *, batched: bool) -> None:
    """Trains local CNNs, as a rank without replicas does, until all rounds are measured.

    Args:
        alternation: measures them.
        config: of the training, which gets as many epochs as the rounds need, and no early end.
        members, batched: see :func:`hpcdd.phases.local.train_cnns`.
    """
    settings = config.local
    epochs = 1 + alternation.steps * alternation.rounds // settings.steps_per_epoch(len(members[0].training))
    settings = settings.model_copy(update={"epochs": max(epochs, settings.epochs), "early_stopping": None})
    lengthened = config.model_copy(update={"local": settings})
    with contextlib.suppress(StopRequest):
        train_cnns(lengthened, members, BatchSharing(), Hooks(step=alternation.boundary), batched=batched)
