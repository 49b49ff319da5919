"""Signal handlers that raise, kept back while a library works that an exception out of its callbacks would crash."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

Handlers = dict[int, Callable[[int, FrameType | None], object]]

_handlers: list[Handlers] = []
"""Of each block of :func:`deferred` that is open."""
_received: list[int] = []


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Python's signal handlers run at the next :func:`point`, or behind the block."""
    if threading.current_thread() is not threading.main_thread():  # handlers run in that one alone
        yield
        return
    handlers: Handlers = {
        signum: handler for signum in signal.valid_signals() if callable(handler := signal.getsignal(signum))
    }
    for signum in handlers:
        signal.signal(signum, lambda received, _: _received.append(received))
    _handlers.append(handlers)
    try:
        yield
    finally:
        _handlers.pop()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        _run(handlers)


def point() -> None:
    """Within a block of :func:`deferred`: what was received meanwhile is handled now. Elsewhere nothing is kept."""
    if _handlers:
        _run(_handlers[-1])


def _run(handlers: Handlers) -> None:
    while _received:
        signum = _received.pop(0)
        if signum in handlers:
            handlers[signum](signum, None)
