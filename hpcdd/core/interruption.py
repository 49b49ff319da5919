"""Signal handlers that raise, kept back while a library works that an exception out of its callbacks would crash."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

Handlers = dict[int, Callable[[int, FrameType | None], object]]

_handlers: Handlers = {}
"""Those that the open block of :func:`deferred` keeps back."""
_received: list[int] = []


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Python's signal handlers run at the next :func:`point`, or behind the block; of nested blocks, the outermost."""
    if _handlers or threading.current_thread() is not threading.main_thread():  # handlers run in that one alone
        yield
        return
    _handlers.update(
        (signum, handler) for signum in signal.valid_signals() if callable(handler := signal.getsignal(signum))
    )
    try:
        for signum in _handlers:
            signal.signal(signum, lambda received, _: _received.append(received))
        yield
    finally:
        handlers = dict(_handlers)
        _handlers.clear()
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        _run(handlers)


def point() -> None:
    """Within a block of :func:`deferred`: what was received meanwhile is handled now. Elsewhere nothing is kept."""
    _run(_handlers)


def _run(handlers: Handlers) -> None:
    while _received:
        signum = _received.pop(0)
        if signum in handlers:
            handlers[signum](signum, None)
