"""How statuses are shown: a live table, a line per epoch, or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Literal, Protocol, TextIO

from rich.console import Console, ConsoleDimensions
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ..errors import UserError
from ..launch import Launch
from ..phases.status import NAMES, Status
from ..seeding import WHOLE
from .terminal import find_terminal

ProgressSetting = Literal["auto", "live", "lines", "off"]


class Display(Protocol):
    """Shows statuses; on root.

    Attributes:
        interval: seconds between two statuses of one rank that it can make use of; ``inf``: ends of epochs suffice.
    """

    interval: float

    def begin(self, phase: str, subdomains: Sequence[int]) -> None:
        """Announces whose statuses of a phase will come."""

    def show(self, status: Status, end_of_epoch: bool) -> None:
        """Takes one status in."""

    def close(self) -> None:
        """Leaves the last state visible and frees the terminal."""


class NoDisplay:
    """Shows nothing."""

    interval = math.inf

    def begin(self, phase: str, subdomains: Sequence[int]) -> None:
        """Does nothing."""

    def show(self, status: Status, end_of_epoch: bool) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class LineDisplay:
    """Prints a line at the end of every epoch."""

    interval = math.inf

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def begin(self, phase: str, subdomains: Sequence[int]) -> None:
        """Does nothing."""

    def show(self, status: Status, end_of_epoch: bool) -> None:
        """Prints ends of epochs; what happens within an epoch is not shown."""
        if not end_of_epoch:
            return
        words = [
            f"{_who(status.phase, status.subdomain):<29} epoch {status.epoch:>2}/{status.epochs}",
            f"loss {status.loss:.4f}",
            f"accuracy {status.accuracy:.4f}",
        ]
        if status.validation_accuracy is not None:
            words.append(f"validation {status.validation_accuracy:.4f}")
        words += [f"{status.samples_per_second:,.0f} samples/s", f"{_time_left(status)} left"]
        print("  ".join(words), file=self._out, flush=True)

    def close(self) -> None:
        """Does nothing."""


class _TerminalConsole(Console):
    """Measures the terminal that it draws on, which need not be this process's own."""

    @property  # type: ignore[misc]  # the setter is of no use here
    def size(self) -> ConsoleDimensions:
        columns, lines = os.get_terminal_size(self.file.fileno())
        return ConsoleDimensions(columns or 80, lines or 24)  # a terminal that does not know says 0 x 0

    def show_cursor(self, show: bool = True) -> bool:
        """Leaves the cursor as it is: a job that is aborted could not bring a hidden one back."""
        return False


class LiveDisplay:
    """Redraws one row per subdomain on a terminal."""

    interval = 0.5

    def __init__(self, terminal: TextIO, own: bool) -> None:
        self._terminal, self._own = terminal, own
        self._rows: dict[tuple[str, int], TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[text]}"),
            console=_TerminalConsole(file=terminal, force_terminal=True, highlight=False),
            refresh_per_second=4,
            expand=True,
        )

    def begin(self, phase: str, subdomains: Sequence[int]) -> None:
        """Draws the rows."""
        self._progress.start()
        if len(self._rows) + len(subdomains) >= self._progress.console.height:
            for row in self._rows.values():  # what is over makes room for what is going on
                self._progress.update(row, visible=False)
        for subdomain in subdomains:
            row = self._progress.add_task(_who(phase, subdomain), total=1.0, text="waiting")
            self._rows[phase, subdomain] = row

    def show(self, status: Status, end_of_epoch: bool) -> None:
        """Moves the row of the status's subdomain on."""
        epoch = status.epoch if end_of_epoch else status.epoch + 1
        text = f"epoch {epoch}/{status.epochs}  loss {status.loss:.3f}  acc {status.accuracy:.3f}"
        if status.validation_accuracy is not None:
            text += f"  val {status.validation_accuracy:.3f}"
        text += f"  {status.samples_per_second:,.0f}/s  {_time_left(status)}"
        self._progress.update(self._rows[status.phase, status.subdomain], completed=status.fraction, text=text)

    def close(self) -> None:
        """Draws the last state and gives the terminal back."""
        self._progress.stop()
        if not self._own:
            self._terminal.close()


def make_display(setting: ProgressSetting, launch: Launch, out: TextIO) -> Display:
    """The display that ``progress`` asks for.

    Raises:
        UserError: ``live`` where root can reach no terminal.
    """
    if setting == "off":
        return NoDisplay()
    terminal = find_terminal(launch, out) if setting in ("auto", "live") else None
    if terminal is not None:
        return LiveDisplay(terminal, own=terminal is out)
    if setting == "live":
        raise UserError(
            "progress is 'live', but root can reach no terminal (output is redirected, the job is in the background, "
            "or root runs on another host than its launcher); use --progress auto or --progress lines"
        )
    return LineDisplay(out)


def _who(phase: str, subdomain: int) -> str:
    return NAMES[phase].removeprefix("the ") if subdomain == WHOLE else f"{phase} subdomain {subdomain}"


def _time_left(status: Status) -> str:
    if status.finished:
        return "0:00"
    if status.fraction <= 0:
        return "-:--"
    minutes, seconds = divmod(round(status.seconds / status.fraction * (1 - status.fraction)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
