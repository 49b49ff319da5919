"""How long the tests wait for what has to happen: for the event itself, however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LIMIT = 600.0
"""Seconds after which a test gives up: far beyond what a busy machine takes, so that only what hangs gets there."""


def wait_until(condition: Callable[[], T], pause: float = 0.02) -> T:
    """Waits until ``condition()`` is true, and returns its value; fails after :data:`LIMIT` seconds."""
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {LIMIT} s"
        time.sleep(pause)
    return found
