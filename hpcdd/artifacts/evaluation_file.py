"""evaluation.json: the results of ``hpcdd evaluate --output FOLDER``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from .results import Accuracy, Part


class Evaluation(Part):
    """The content of evaluation.json: a trained model on one split of a data set."""

    format: Literal[1] = 1
    """Version of the format."""
    model: str
    """Path of the run directory or model.h5, as given."""
    dataset: str
    """Name of the data set."""
    file: str
    """Path of the dataset file."""
    split: str
    """Name of the split: ``train``, ``validation`` or ``test``."""
    samples: NonNegativeInt
    """Number of samples of the split."""
    examined: NonNegativeInt
    """Number of these samples that everything except the accuracies is computed from."""
    accuracy: Accuracy
    metrics: dict[str, dict[str, float]]
    """By strategy: ``accuracy``; ``balanced_accuracy``, the mean recall of the classes; ``macro_f1``, their mean F1
    score; ``log_loss``, the mean negative log-likelihood of the labels, in nats; ``brier_score``, 0 to 2;
    ``calibration_error``, the expected calibration error with 15 bins of the confidence."""
    seconds: NonNegativeFloat
    """Wall time of the evaluation on root, without the start-up and the writing of files."""
    ranks: PositiveInt
    """Number of ranks."""

    def content(self) -> dict[str, Any]:
        """The content as plain data."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
