"""metrics.jsonl: what every epoch has come to, a line each."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import TypedDict


class EpochRecord(TypedDict):
    """A line.

    Attributes:
        phase: ``local``, ``dnn``, ``coherent_transfer``, ``coherent_scratch`` or ``global``.
        subdomain: s; None of a network that belongs to all.
        epoch: number of epochs that are complete.
        loss, accuracy: mean over the samples of the epoch, in training mode.
        validation_loss, validation_accuracy: at the end of the epoch, None without a validation split.
        learning_rate: of the epoch's last step.
        seconds: since the training began.
        samples_per_second: over the epoch.
    """

    phase: str
    subdomain: int | None
    epoch: int
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    samples_per_second: float


class MetricsLog:
    """The file: one line for each epoch of each subdomain and phase, written as they become known on root.

    The file is begun anew: a run that is resumed tells what happened before from its checkpoints. Lines that
    can't be written wait for the next attempt, so that a full disk neither ends a training nor leaves half a line.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._waiting = b""
        self._end = 0

    def add(self, record: EpochRecord) -> None:
        """Appends the end of one epoch."""
        # JSON has no NaN; a validation loss may be one.
        finite = {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in record.items()}
        self._waiting += (json.dumps(finite, allow_nan=False) + "\n").encode()
        self._write()

    def close(self) -> None:
        """Closes the file."""
        self._write()
        self._file.close()

    def _write(self) -> None:
        try:
            self._file.seek(self._end)
            if self._file.write(self._waiting) == len(self._waiting):
                self._end, self._waiting = self._end + len(self._waiting), b""
            else:
                self._file.truncate(self._end)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
