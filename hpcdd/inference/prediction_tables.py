"""Predictions of a model on new images, and how they are written: a table, CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.texts import csv_text, printable
from .image_inputs import UNKNOWN

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """Predictions for n images.

    Attributes:
        classes: K names.
        strategy: the strategy that made the predictions.
        names: of the images.
        predicted: int64 (n,), numbers of classes.
        probability: float64 (n,), of the predicted class.
        votes: int64 (n, S), the classes that the local CNNs predict on their own.
        labels: int64 (n,), :data:`hpcdd.inference.image_inputs.UNKNOWN` where the class is unknown.
    """

    classes: tuple[str, ...]
    strategy: str
    names: Sequence[str]
    predicted: Integers
    probability: npt.NDArray[np.float64]
    votes: Integers
    labels: Integers

    @property
    def known(self) -> int:
        """Images whose class is known."""
        return int((self.labels != UNKNOWN).sum())

    @property
    def correct(self) -> int:
        """Number of images that are classified correctly."""
        return int((self.predicted == self.labels).sum())

    @property
    def accuracy(self) -> float | None:
        """Fraction of the images with a known class that are classified correctly; None without any."""
        return self.correct / self.known if self.known else None

    def to_table(self) -> str:
        """Aligned columns for people; the votes of subdomain 0, 1, ... one after the other."""
        lines = [("image", "class", "probability", *(["truth"] if self.known else []), "votes of the local CNNs")]
        for name, predicted, probability, votes, label in self._rows():
            truth = [label or "?"] if self.known else []
            lines.append((printable(name), predicted, f"{probability:.4f}", *truth, ", ".join(votes)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "".join(f"{line.rstrip()}\n" for line in padded)

    def to_csv(self) -> str:
        """One line per image, with a column for the vote of each subdomain."""
        head = ["image", "class", "probability", "truth", *(f"vote_{s}" for s in range(self.votes.shape[1]))]
        rows = [[name, predicted, sure, truth, *votes] for name, predicted, sure, votes, truth in self._rows()]
        return csv_text([head, *rows])

    def to_json(self) -> str:
        """One object, with the accuracy and a list of the images; null for what is unknown."""
        content: dict[str, Any] = {
            "strategy": self.strategy,
            "classes": self.classes,
            "accuracy": self.accuracy,
            "known": self.known,
            "predictions": [
                {"image": name, "class": predicted, "probability": probability, "truth": label, "votes": votes}
                for name, predicted, probability, votes, label in self._rows()
            ],
        }
        return json.dumps(content, indent=1) + "\n"

    def _rows(self) -> Iterator[tuple[str, str, float, list[str], str | None]]:
        """Name, predicted class, probability, votes and true class of each image."""
        for i, name in enumerate(self.names):
            label = None if self.labels[i] == UNKNOWN else self.classes[self.labels[i]]
            votes = [self.classes[vote] for vote in self.votes[i]]
            yield name, self.classes[self.predicted[i]], float(self.probability[i]), votes, label
