"""Turns of two loops in one process: one of them is a training, whose step boundaries begin those of the other."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..config.schema import LocalSettings
from ..core.errors import StopRequest


@dataclass
class Turns:
    """Measures turns of steps from their boundaries, and lets another loop do as many steps after each turn.

    Attributes:
        steps: of a turn.
        rounds: turns of each.
        wait: until the device has done its work.
        other: one step of the other loop.
        seconds, others: of a step, by turn.
    """

    steps: int
    rounds: int
    wait: Callable[[], None]
    other: Callable[[], object]
    seconds: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    _done: int = -1
    _begun: float = 0.0

    @property
    def steps_in_all(self) -> int:
        """Of each loop."""
        return self.steps * self.rounds

    def boundary(self) -> None:
        """To be called before each step.

        Raises:
            StopRequest: all turns are measured.
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


def long_enough(settings: LocalSettings, samples: int, turns: Turns) -> LocalSettings:
    """The settings with as many epochs as all turns need, and no early end."""
    epochs = 1 + turns.steps_in_all // settings.steps_per_epoch(samples)
    return settings.model_copy(update={"epochs": max(epochs, settings.epochs), "early_stopping": None})
