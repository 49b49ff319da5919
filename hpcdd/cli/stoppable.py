"""Commands of one process that a signal ends in good order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from ..core.errors import StopRequest
from ..mpi import launcher


@contextlib.contextmanager
def stoppable(phase: str) -> Iterator[None]:
    """Ctrl-C and its like end the block by a StopRequest, so that it can take its temporary files away."""
    received: list[int] = []

    def handler(signum: int, _: FrameType | None) -> None:
        received.append(signum)
        raise KeyboardInterrupt  # unlike StopRequest it passes through `except Exception`

    before = launcher.handle(launcher.ENDING, handler)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise StopRequest(received[0] if received else signal.SIGINT, phase) from interrupt
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)
