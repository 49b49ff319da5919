"""Wall and CPU seconds of the phases of a job, on one rank."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from ..core.names import PhaseName


class PhaseTimer:
    """Adds up what each phase takes; a phase that an exception ends is left out.

    Args:
        seconds, core_seconds: of the phase ``start``, before there was a timer.

    Attributes:
        seconds: by phase, wall time.
        core_seconds: by phase, CPU time of all threads of this process.
    """

    def __init__(self, seconds: float, core_seconds: float) -> None:
        self.seconds: dict[PhaseName, float] = {"start": seconds}
        self.core_seconds: dict[PhaseName, float] = {"start": core_seconds}

    @contextlib.contextmanager
    def phase(self, name: PhaseName) -> Iterator[None]:
        """The ``with`` block belongs to the phase ``name``."""
        start, worked = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.core_seconds[name] = self.core_seconds.get(name, 0.0) + time.process_time() - worked
