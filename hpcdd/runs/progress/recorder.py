"""Where the statuses of all ranks go on root: the display, metrics.jsonl, TensorBoard."""

from __future__ import annotations

from ...artifacts.metrics_log import MetricsLog
from ...training.status import Status
from .board import Board
from .display import Display


class StatusRecorder:
    """Takes every status in; a :class:`hpcdd.runs.progress.telemetry.Sink`.

    Args:
        display: what is seen.
        metrics, board: take the ends of epochs; None for neither.
    """

    def __init__(self, display: Display, metrics: MetricsLog | None = None, board: Board | None = None) -> None:
        self.display, self._metrics, self._board = display, metrics, board

    def __call__(self, status: Status, *, end_of_epoch: bool, earlier: bool = False) -> None:
        """See there."""
        self.display.show(status, end_of_epoch and not earlier)
        if end_of_epoch and self._metrics is not None:
            self._metrics.add(status.record())
        if end_of_epoch and self._board is not None:
            self._board.add(status)

    def close(self) -> None:
        """Leaves the display's last state visible, and closes the files."""
        self.display.close()
        if self._metrics is not None:
            self._metrics.close()
