"""What a model has decided on new images, and how that is written: a table, CSV or JSON."""

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
    """Of n images.

    Attributes:
        classes: K names.
        strategy: that has decided.
        names: n of them.
        decided: int64 (n,), numbers of classes.
        probability: float64 (n,), that the strategy gives to the class that it decides for.
        votes: int64 (n, S), the classes that the local CNNs decide for on their own.
        labels: int64 (n,), :data:`hpcdd.inference.image_inputs.UNKNOWN` where it is not known.
    """

    classes: tuple[str, ...]
    strategy: str
    names: Sequence[str]
    decided: Integers
    probability: npt.NDArray[np.float64]
    votes: Integers
    labels: Integers

    @property
    def known(self) -> int:
        """Images whose class is known."""
        return int((self.labels != UNKNOWN).sum())

    @property
    def right(self) -> int:
        """Images of them on which the strategy is right."""
        return int((self.decided == self.labels).sum())

    @property
    def accuracy(self) -> float | None:
        """Share of the images with a known class that are classified correctly; None without any."""
        return self.right / self.known if self.known else None

    def to_table(self) -> str:
        """Aligned columns for people; the votes of subdomain 0, 1, ... one after the other."""
        lines = [("image", "class", "probability", *(["truth"] if self.known else []), "votes of the local CNNs")]
        for name, decided, probability, votes, label in self._rows():
            truth = [label or "?"] if self.known else []
            lines.append((printable(name), decided, f"{probability:.4f}", *truth, ", ".join(votes)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "".join(f"{line.rstrip()}\n" for line in padded)

    def to_csv(self) -> str:
        """A line an image, with a column for the vote of each subdomain."""
        head = ["image", "class", "probability", "truth", *(f"vote_{s}" for s in range(self.votes.shape[1]))]
        rows = [[name, decided, sure, truth, *votes] for name, decided, sure, votes, truth in self._rows()]
        return csv_text([head, *rows])

    def to_json(self) -> str:
        """One object, with the accuracy and a list of the images; null for what is not known."""
        content: dict[str, Any] = {
            "strategy": self.strategy,
            "classes": self.classes,
            "accuracy": self.accuracy,
            "known": self.known,
            "predictions": [
                {"image": name, "class": decided, "probability": probability, "truth": label, "votes": votes}
                for name, decided, probability, votes, label in self._rows()
            ],
        }
        return json.dumps(content, indent=1) + "\n"

    def _rows(self) -> Iterator[tuple[str, str, float, list[str], str | None]]:
        """Of each image its name, class, probability, votes and true class."""
        for i, name in enumerate(self.names):
            label = None if self.labels[i] == UNKNOWN else self.classes[self.labels[i]]
            votes = [self.classes[vote] for vote in self.votes[i]]
            yield name, self.classes[self.decided[i]], float(self.probability[i]), votes, label
