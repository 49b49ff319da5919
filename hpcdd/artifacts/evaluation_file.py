"""evaluation.json: what ``hpcdd evaluate`` has found."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from .results import Accuracy, Part


class Evaluation(Part):
    """The content of evaluation.json: a trained model on one split of a data set."""

    format: Literal[1] = 1
    model: str
    """The run directory or model.h5, as given."""
    dataset: str
    file: str
    """Path of the dataset file."""
    split: str
    samples: NonNegativeInt
    examined: NonNegativeInt
    """Number of these samples from which everything but the accuracies was computed."""
    accuracy: Accuracy
    metrics: dict[str, dict[str, float]]
    """By strategy, see :data:`hpcdd.artifacts.metrics.SUMMARY`."""
    seconds: NonNegativeFloat
    ranks: PositiveInt

    def content(self) -> dict[str, Any]:
        """The content as plain data."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
