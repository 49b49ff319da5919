"""How long the tests wait for what has to happen: for the event itself, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Replaces a clock of the module ``time``; it advances only where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


PROMPTLY = 120.0
"""Seconds within which a job has to end that ends at once: in one or two on an idle machine; stall_timeout is 600."""
LIMIT = 600.0
"""Seconds after which a test gives up: far beyond what a busy machine takes, so that only what hangs gets there."""


def wait_until(condition: Callable[[], T], pause: float = 0.02) -> T:
    """Waits until ``condition()`` is true, and returns its value; fails after :data:`LIMIT` seconds."""
    end = time.monotonic() + LIMIT
    while not (outcome := condition()):
        assert time.monotonic() < end, f"not within {LIMIT} s"
        time.sleep(pause)
    return outcome


def since_fault(folder: Path) -> float:
    """Seconds since the moment that ``tests/ranks/faulty.py`` has noted in ``folder``."""
    return time.time() - float((folder / "fault").read_text())
