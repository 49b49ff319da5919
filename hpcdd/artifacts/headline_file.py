"""headline.json: test accuracy against seconds of training, by ``hpcdd bench headline``. Needs no torch or MPI."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TextIO

from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationInfo, field_validator

from ..core.text_table import print_table
from .documents import Document

NAME = "headline.json"
Contender = Literal["global", "dnn", "coherent_transfer"]
LABELS: dict[Contender, str] = {
    "global": "global CNN, DDP",
    "dnn": "local CNNs and DNN",
    "coherent_transfer": "coherent model, by transfer",
}
REFERENCE: Contender = "global"
ENDS = ["", "epochs", "seconds", "test accuracy"]
TIMES = ["test accuracy", *LABELS.values(), "ratio"]
"""Columns of :meth:`Headline.ends` and :meth:`Headline.times`."""
_KEYS: dict[str, tuple[str, ...]] = {
    "samples": ("train", "test"),
    "parameters": ("global", "coherent"),
    "curves": tuple(LABELS),
}
"""By field, the keys that have a value."""
_FIRST, _STEP = 70, 5
"""Per cent: the accuracies to which times are reported."""
_ROUNDING = 1e-6
"""Accuracies are means in float32, where 7 of 10 are less than 0.7."""


class CurvePoint(Document):
    """The end of an epoch.

    Attributes:
        epoch: number of complete epochs of this training.
        seconds: wall time of training so far, on the slowest rank, without reading and evaluation of the test split.
        accuracy: accuracy on the test split.
    """

    epoch: PositiveInt
    seconds: NonNegativeFloat
    accuracy: Annotated[float, Field(ge=0, le=1)]


class Headline(Document):
    """The content of headline.json.

    Attributes:
        format: version of the format.
        name: name of the configuration: the setting `name`.
        dataset: name of the data set.
        samples: number of samples of the splits ``train`` and ``test``.
        parameters: number of trainable parameters of the ``global`` CNN and of the ``coherent`` model.
        places: host, device, number of threads and number of subdomains of each rank.
        network: network interfaces and address that PyTorch's DistributedDataParallel used for its messages.
        curves: by model, its accuracy at the end of each epoch: ``global``, the global CNN in DistributedDataParallel;
            ``dnn``, the DNN on the local CNNs; ``coherent_transfer``, the coherent model by transfer. Seconds of the
            DNN include the local phase; those of the coherent model include the local phase and the aggregation.
        machine: facts about root's host, those of environment.json up to ``mpi_library``, with ``processor``, its model
            name.
        time: local date and time of the end, ISO 8601 with the offset from UTC.
        config: the configuration, nested as in a configuration file.
    """

    format: Literal[1] = 1
    name: str
    dataset: str
    samples: dict[str, PositiveInt]
    parameters: dict[str, PositiveInt]
    places: Annotated[list[tuple[str, str, PositiveInt, PositiveInt]], Field(min_length=1)]
    network: str
    curves: dict[Contender, list[CurvePoint]]
    machine: dict[str, Any]
    time: str
    config: dict[str, Any]

    @field_validator(*_KEYS)
    @classmethod
    def _check_keys(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if missing := [key for key in _KEYS[info.field_name or ""] if not value.get(key)]:
            raise ValueError(f"nothing is given for {missing[0]}")
        return value

    def full_curve(self, contender: Contender) -> list[CurvePoint]:
        """A contender's curve, after that of the trained DNN for a coherent model that starts from it."""
        start = self.config.get("coherent", {}).get("dnn_start", "trained")  # earlier files lack the setting
        before = self.curves["dnn"] if contender == "coherent_transfer" and start == "trained" else []
        return [*before, *self.curves[contender]]

    def seconds_to(self, accuracy: float, contender: Contender) -> float | None:
        """Seconds of training until a contender reaches an accuracy at the end of an epoch; None if it never does."""
        reached = (point.seconds for point in self.full_curve(contender) if point.accuracy >= accuracy - _ROUNDING)
        return next(reached, None)

    @property
    def thresholds(self) -> list[float]:
        """0.70, 0.75, ... up to the highest accuracy of any contender."""
        best = max(point.accuracy for points in self.curves.values() for point in points)
        return [percent / 100 for percent in range(_FIRST, math.floor(100 * (best + _ROUNDING)) + 1, _STEP)]

    def ends(self) -> list[list[str]]:
        """Rows of a table: contender, epochs, seconds, accuracy after the last epoch."""
        rows = []
        for contender, label in LABELS.items():
            points = self.curves[contender]
            rows.append([label, str(len(points)), f"{points[-1].seconds:,.1f}", f"{points[-1].accuracy:.4f}"])
        return rows

    def times(self) -> list[list[str]]:
        """Rows of a table: accuracy, seconds of each contender, and the reference's over the coherent model's."""
        rows = []
        for accuracy in self.thresholds:
            seconds = {contender: self.seconds_to(accuracy, contender) for contender in LABELS}
            ours, reference = seconds["coherent_transfer"], seconds[REFERENCE]
            ratio = f"{reference / ours:.2f}" if ours and reference else "-"
            cells = ["-" if value is None else f"{value:,.1f}" for value in seconds.values()]
            rows.append([f"{accuracy:.2f}", *cells, ratio])
        return rows

    def conclusion(self) -> str:
        """A sentence about the seconds to the highest accuracy that both DDP and the coherent model reach."""
        both = [
            (accuracy, reference, ours)
            for accuracy in self.thresholds
            if (reference := self.seconds_to(accuracy, REFERENCE))
            and (ours := self.seconds_to(accuracy, "coherent_transfer"))
        ]
        if not both:
            return f"DDP and the coherent model do not both reach a test accuracy of {_FIRST / 100:.2f}."
        accuracy, reference, ours = both[-1]
        return f"To reach {accuracy:.2f}, DDP took {reference:,.1f} s and the coherent model {ours:,.1f} s."

    def show(self, out: TextIO) -> None:
        """Prints both tables and the conclusion."""
        print_table("after the last epoch of each model", ENDS, self.ends(), out)
        title = "seconds until a test accuracy is reached at the end of an epoch; ratio: DDP / coherent model"
        print_table(title, TIMES, self.times(), out)
        print(self.conclusion(), file=out, flush=True)
