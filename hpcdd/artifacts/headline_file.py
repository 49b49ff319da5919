"""headline.json: curves of test accuracy against seconds of training, and what they say; no torch, no MPI."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

from ..core.files import read_json, write_json, writing

NAME = "headline.json"
Contender = Literal["global", "dnn", "coherent_transfer"]
WORDS: dict[Contender, str] = {
    "global": "global CNN, DDP",
    "dnn": "local CNNs and DNN",
    "coherent_transfer": "coherent model, by transfer",
}
REFERENCE: Contender = "global"
_FIRST, _STEP = 70, 5
"""Per cent: the accuracies to which times are reported."""
_ROUNDING = 1e-6
"""Accuracies are means in float32, where 7 of 10 are less than 0.7."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CurvePoint(_Part):
    """The end of an epoch.

    Attributes:
        epoch: of the training, from 1.
        seconds: of training so far, on the slowest rank.
        accuracy: on the test split.
    """

    epoch: PositiveInt
    seconds: NonNegativeFloat
    accuracy: Annotated[float, Field(ge=0, le=1)]


class Headline(_Part):
    """What ``bench headline`` has found.

    Attributes:
        name, config: of the configuration.
        dataset: its name.
        samples: of the splits ``train`` and ``test``.
        parameters: of the ``global`` CNN and of the ``coherent`` model.
        places: host, device, threads and number of subdomains of each rank.
        network: of DDP's messages.
        curves: by contender its epochs. The coherent model goes on where the DNN's curve ends.
        machine: facts of :func:`hpcdd.core.environment.facts` with processor and MPI library, of root's host.
        time: of the end.
    """

    format: Literal[1] = 1
    name: str
    dataset: str
    samples: dict[str, PositiveInt]
    parameters: dict[str, PositiveInt]
    places: list[tuple[str, str, PositiveInt, PositiveInt]]
    network: str
    curves: dict[Contender, list[CurvePoint]]
    machine: dict[str, Any]
    time: str
    config: dict[str, Any]

    def way(self, contender: Contender) -> list[CurvePoint]:
        """A contender's curve, with what it goes on from."""
        before = self.curves["dnn"] if contender == "coherent_transfer" else []
        return [*before, *self.curves[contender]]

    def seconds_to(self, accuracy: float, contender: Contender) -> float | None:
        """Of training until a contender is as accurate at the end of an epoch; None if it never is."""
        return next((point.seconds for point in self.way(contender) if point.accuracy >= accuracy - _ROUNDING), None)

    @property
    def thresholds(self) -> list[float]:
        """0.70, 0.75, ... as far as one contender comes."""
        best = max(point.accuracy for points in self.curves.values() for point in points)
        return [percent / 100 for percent in range(_FIRST, math.floor(100 * (best + _ROUNDING)) + 1, _STEP)]

    def ends(self) -> list[list[str]]:
        """Rows of a table: contender, epochs, seconds, accuracy behind the last epoch."""
        return [
            [words, str(len(points)), f"{points[-1].seconds:,.1f}", f"{points[-1].accuracy:.4f}"]
            for contender, words in WORDS.items()
            if (points := self.curves[contender])
        ]

    def times(self) -> list[list[str]]:
        """Rows of a table: accuracy, seconds of each contender, and the reference's over the coherent model's."""
        rows = []
        for accuracy in self.thresholds:
            seconds = {contender: self.seconds_to(accuracy, contender) for contender in WORDS}
            ours, reference = seconds["coherent_transfer"], seconds[REFERENCE]
            ratio = f"{reference / ours:.2f}" if ours and reference else "-"
            cells = ["-" if value is None else f"{value:,.1f}" for value in seconds.values()]
            rows.append([f"{accuracy:.2f}", *cells, ratio])
        return rows


def write(folder: Path, found: Headline) -> None:
    """Writes the file.

    Raises:
        WriteError: it can't be written.
    """
    with writing(folder / NAME):
        write_json(folder / NAME, found.model_dump(mode="json"))


def read(folder: Path) -> Headline:
    """What :func:`write` wrote.

    Raises:
        UserError: it is not there, or damaged.
    """
    return read_json(folder / NAME, Headline)
