"""``train --profile``: some steps of every phase as a trace of each rank, which Perfetto (ui.perfetto.dev) opens."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ..core.names import TRAININGS
from ..training.step_timing import mark

BEFORE = 3
"""Steps of a phase that are skipped: the first ones load and compile."""
STEPS = 10
"""Steps that are traced, or all that follow if the phase has fewer."""


class Tracer:
    """Traces of one rank. In each step its parts are marked, see :data:`hpcdd.training.step_timing.PARTS`.

    Args:
        folder: for the traces, PHASE-rank-RRRR.json; it exists.
        rank: of this process.
        device: of this rank.
        log: for a warning if a trace can't be written.
    """

    def __init__(self, folder: Path, rank: int, device: str, log: logging.Logger) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or torch's profiler prints when it starts and stops
        self._folder, self._rank, self._log = folder, rank, log
        self._activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device != "cpu" else [])]
        self._counted: dict[str, int] = {}
        self._phase = ""
        self._running: profile | None = None

    def step(self, phase: str) -> None:
        """To be called at every step boundary; where a rank trains several networks in a phase, the first is traced."""
        if phase not in TRAININGS:
            return
        number = self._counted[phase] = self._counted.get(phase, -1) + 1
        if self._running is None and number == BEFORE:
            self._phase, self._running = phase, profile(activities=self._activities)
            mark(record_function)
            self._running.start()
        elif self._running is not None and phase == self._phase and number == BEFORE + STEPS:
            self.end()

    def end(self) -> None:
        """Writes the trace that is begun; to be called at the end of a phase."""
        if self._running is None:
            return
        mark(None)
        running, self._running = self._running, None
        if torch.cuda.is_available() and ProfilerActivity.CUDA in self._activities:
            torch.cuda.synchronize()
        running.stop()
        path = self._folder / f"{self._phase}-rank-{self._rank:04d}.json"
        try:
            running.export_chrome_trace(str(path))
        except OSError as error:
            self._log.warning("%s can't be written: %s", path, error)
