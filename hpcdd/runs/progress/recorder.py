"""Where the statuses of all ranks go on root: the display, metrics.jsonl, TensorBoard."""

from __future__ import annotations

from ...artifacts.metrics_log import MetricsLog
from ...training.status import Status
from .board import Board
from .display import Display
from .telemetry import Moment


class StatusRecorder:
    """Receives every status; a :data:`hpcdd.runs.progress.telemetry.Sink`.

    Args:
        display: what is seen.
        metrics, board: record the ends of epochs; None: they are not recorded there.
    """

    def __init__(self, display: Display, metrics: MetricsLog | None = None, board: Board | None = None) -> None:
        self.display, self._metrics, self._board = display, metrics, board

    def __call__(self, status: Status, moment: Moment) -> None:
        """Shows the status, and records the end of an epoch."""
        self.display.show(status, moment == "end of epoch")
        if moment != "within epoch" and self._metrics is not None:
            self._metrics.add(status.record())
        if moment != "within epoch" and self._board is not None:
            self._board.add(status)

    def close(self) -> None:
        """Leaves the display's last state visible, and closes the files."""
        self.display.close()
        if self._metrics is not None:
            self._metrics.close()
