"""How statuses are shown: a live table, a line per epoch, or not at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TextIO

from ...core.errors import UserError
from ...core.names import TRAININGS, TrainingName
from ...core.seeding import WHOLE
from ...mpi.launcher import Launch
from ...training.status import Status
from .terminal import find_terminal

ProgressSetting = Literal["auto", "live", "lines", "off"]


class Display:
    """Shows statuses, on root; this one shows nothing.

    Attributes:
        interval: seconds between two statuses of one rank that it can make use of; ``inf``: ends of epochs suffice.
    """

    interval = math.inf

    def begin(self, phase: TrainingName, subdomains: Sequence[int]) -> None:
        """Announces whose statuses of a phase will come."""

    def show(self, status: Status, end_of_epoch: bool) -> None:
        """Shows one status."""

    def close(self) -> None:
        """Leaves the last state visible and frees the terminal."""


class LineDisplay(Display):
    """Prints a line at the end of every epoch."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, status: Status, end_of_epoch: bool) -> None:
        """Prints ends of epochs; what happens within an epoch is not shown."""
        if not end_of_epoch:
            return
        fields = [
            f"{row_name(status.phase, status.subdomain):<29} epoch {status.epoch:>2}/{status.epochs}",
            f"loss {status.loss:.4f}",
            f"accuracy {status.accuracy:.4f}",
        ]
        if status.validation_accuracy is not None:
            fields.append(f"validation {status.validation_accuracy:.4f}")
        fields += [f"{status.samples_per_second:,.0f} samples/s", f"{time_left(status)} left"]
        print("  ".join(fields), file=self._out, flush=True)


def make_display(setting: ProgressSetting, launch: Launch, out: TextIO) -> Display:
    """The display that ``progress`` asks for.

    Raises:
        UserError: ``live`` where root can reach no terminal.
    """
    if setting == "off":
        return Display()
    terminal = find_terminal(launch, out) if setting in ("auto", "live") else None
    if terminal is not None:
        from .live import LiveDisplay

        return LiveDisplay(terminal, keep_open=terminal is out)
    if setting == "live":
        raise UserError(
            "progress is 'live', but root has no terminal (output is redirected, the job is in the background, or root "
            "and its launcher are on different hosts); use --progress auto or --progress lines"
        )
    return LineDisplay(out)


def row_name(phase: TrainingName, subdomain: int) -> str:
    """Whose status it is."""
    return TRAININGS[phase].network.removeprefix("the ") if subdomain == WHOLE else f"{phase} subdomain {subdomain}"


def time_left(status: Status) -> str:
    """Of a phase, as hours, minutes and seconds."""
    if status.finished:
        return "0:00"
    if status.fraction <= 0:
        return "-:--"
    minutes, seconds = divmod(round(status.seconds / status.fraction * (1 - status.fraction)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
