"""The live table of all subdomains. Only the rank that draws it imports what draws."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ...core.names import TrainingName
from ...training.status import Status
from .display import Display, row_name, time_left


class _TerminalConsole(Console):
    """Measures the terminal that it draws on, which need not be this process's own."""

    @property  # type: ignore[misc]  # the setter is of no use here
    def size(self) -> ConsoleDimensions:
        columns, lines = os.get_terminal_size(self.file.fileno())
        return ConsoleDimensions(columns or 80, lines or 24)  # a terminal that does not know says 0 x 0

    def show_cursor(self, show: bool = True) -> bool:
        """Leaves the cursor as it is: a job that is aborted could not bring a hidden one back."""
        return False


class LiveDisplay(Display):
    """Redraws one row per subdomain on a terminal."""

    interval = 0.5

    def __init__(self, terminal: TextIO, keep_open: bool) -> None:
        self._terminal, self._keep_open = terminal, keep_open
        self._rows: dict[tuple[TrainingName, int], TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[text]}"),
            console=_TerminalConsole(file=terminal, force_terminal=True, highlight=False),
            refresh_per_second=4,
            expand=True,
        )

    def begin(self, phase: TrainingName, subdomains: Sequence[int]) -> None:
        """Draws the rows."""
        self._progress.start()
        if len(self._rows) + len(subdomains) >= self._progress.console.height:
            for row in self._rows.values():  # what is over makes room for what is going on
                self._progress.update(row, visible=False)
        for subdomain in subdomains:
            row = self._progress.add_task(row_name(phase, subdomain), total=1.0, text="waiting")
            self._rows[phase, subdomain] = row

    def show(self, status: Status, end_of_epoch: bool) -> None:
        """Moves the row of the status's subdomain on."""
        epoch = status.epoch if end_of_epoch else status.epoch + 1
        text = f"epoch {epoch}/{status.epochs}  loss {status.loss:.3f}  acc {status.accuracy:.3f}"
        if status.validation_accuracy is not None:
            text += f"  val {status.validation_accuracy:.3f}"
        text += f"  {status.samples_per_second:,.0f}/s  {time_left(status)}"
        self._progress.update(self._rows[status.phase, status.subdomain], completed=status.fraction, text=text)

    def close(self) -> None:
        """Draws the last state and gives the terminal back."""
        self._progress.stop()
        if not self._keep_open:
            self._terminal.close()
