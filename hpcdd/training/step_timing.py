"""Where the time of a training goes: parts of its steps, and evaluation batches, marked for whoever measures them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

PARTS = ("input", "forward", "backward", "optimizer")
"""Of a step. What lies between steps is bookkeeping; messages are waited for inside forward and backward."""
EVALUATION = "evaluation"
"""A batch in evaluation mode."""

Marker = Callable[[str], AbstractContextManager[object]]
_NOTHING = nullcontext()
_marker: Marker | None = None


def mark(marker: Marker | None) -> None:
    """From now on every part runs inside ``marker(its name)``; None: nobody measures."""
    global _marker  # noqa: PLW0603 - steps of any phase are marked, and those who measure don't nest
    _marker = marker


def measured() -> bool:
    """Whether somebody measures: then every step goes through its parts, and none is replayed from a record."""
    return _marker is not None


@contextlib.contextmanager
def marked(marker: Marker) -> Iterator[None]:
    """As :func:`mark`, inside the ``with`` block."""
    mark(marker)
    try:
        yield
    finally:
        mark(None)


def part(name: str) -> AbstractContextManager[object]:
    """Marks one of :data:`PARTS` or :data:`EVALUATION`; free where nobody measures."""
    return _NOTHING if _marker is None else _marker(name)
