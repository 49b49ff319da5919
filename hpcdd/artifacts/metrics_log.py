"""metrics.jsonl: the progress of the trainings of a run; one JSON object per line for each epoch of each network."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from ..core.errors import UserError

Number = Annotated[float | None, AfterValidator(lambda x: x if x is not None and math.isfinite(x) else None)]


class EpochRecord(BaseModel):
    """The end of an epoch. JSON has no NaN: a number that is not finite is written as null.

    Attributes:
        format: version of the format of the line; fields are added, and none is changed without another version.
        phase: training: ``local``, ``dnn``, ``coherent_transfer``, ``coherent_scratch`` or ``global``.
        subdomain: number of the subdomain; null for networks that are not of one subdomain.
        epoch: number of complete epochs.
        loss: mean training loss over the samples of the epoch, in training mode.
        accuracy: mean training accuracy over the samples of the epoch, in training mode.
        validation_loss: loss on the validation split at the end of the epoch; null without a validation split.
        validation_accuracy: accuracy on the validation split at the end of the epoch; null without a validation split.
        learning_rate: learning rate of the last step of the epoch.
        seconds: wall time since the training of this network began, earlier jobs of a resumed run included.
        samples_per_second: training samples per second of wall time, over the epoch.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    phase: str
    subdomain: NonNegativeInt | None
    epoch: PositiveInt
    loss: Number
    accuracy: Number
    validation_loss: Number
    validation_accuracy: Number
    learning_rate: Number = None
    seconds: NonNegativeFloat
    samples_per_second: Number = None


class MetricsLog:
    """Writer of the file, on root: one line for each epoch of each subdomain and phase, as soon as it is known.

    An existing file is replaced: a resumed run writes the earlier epochs again, from its checkpoints. Lines that can't
    be written are kept for the next attempt, so that a full disk neither ends a training nor leaves an incomplete line.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._waiting = b""
        self._end = 0

    def add(self, record: EpochRecord) -> None:
        """Appends the end of one epoch."""
        self._waiting += (json.dumps(record.model_dump(), allow_nan=False) + "\n").encode()
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


def read(path: Path) -> tuple[EpochRecord, ...]:
    """All lines of a file.

    Raises:
        UserError: it can't be read, or a line is damaged.
    """
    try:
        texts = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    records = []
    for number, text in enumerate(texts, start=1):
        try:
            records.append(EpochRecord.model_validate_json(text))
        except ValidationError as error:
            first: Any = error.errors()[0]
            raise UserError(f"{path}:{number} is damaged: {first['msg']}; copy it again, or remove the line") from error
    return tuple(records)
