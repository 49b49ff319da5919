"""Classification metrics: pure functions of probabilities and labels.

``probabilities`` is float (n, K), each row adding up to 1; ``predicted`` and ``labels`` are integers (n,) in [0, K).
The recall of a class without samples is NaN, and so is the F1 of a class that has neither samples nor predictions;
means leave NaN out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

BINS = 15
"""Bins of the confidence, of equal width."""

_LEAST = float(np.finfo(np.float32).tiny)
"""Instead of a probability of 0, whose logarithm is infinite."""


def predicted(probabilities: Array) -> npt.NDArray[np.int64]:
    """int64 (n,): the class with the highest probability; the first of several."""
    classes: npt.NDArray[np.int64] = probabilities.argmax(1).astype(np.int64)
    return classes


def accuracy(predicted: Array, labels: Array) -> float:
    """Fraction of the samples that are classified correctly."""
    return int((predicted == labels).sum()) / len(labels)


def confusion(predicted: Array, labels: Array, num_classes: int) -> npt.NDArray[np.int64]:
    """int64 (K, K): number of samples of class i (row) that are predicted to be of class j (column)."""
    pairs = np.bincount(labels.astype(np.int64) * num_classes + predicted, minlength=num_classes**2)
    return pairs.astype(np.int64).reshape(num_classes, num_classes)


def recalls(matrix: Array) -> Floats:
    """(K,): fraction of each class's samples that are classified correctly; ``matrix`` is that of :func:`confusion`."""
    return _ratio(np.diag(matrix), matrix.sum(1))


def f1_scores(matrix: Array) -> Floats:
    """(K,): harmonic mean of each class's recall and precision; ``matrix`` is that of :func:`confusion`."""
    return _ratio(2 * np.diag(matrix), matrix.sum(0) + matrix.sum(1))


def log_loss(probabilities: Array, labels: Array) -> float:
    """Negative log-likelihood of the labels, mean over the samples, in nats."""
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_truth, _LEAST)).mean())


def brier_score(probabilities: Array, labels: Array) -> float:
    """Squared distance of the probabilities from the truth, summed over the classes, mean over the samples: 0 to 2."""
    distance = probabilities.astype(np.float64)
    distance[np.arange(len(labels)), labels] -= 1
    return float((distance**2).sum(1).mean())


@dataclass(frozen=True)
class Calibration:
    """Reliability by bin of the confidence (the probability of the predicted class), (BINS,).

    Bin i holds confidences in (i / BINS, (i + 1) / BINS], the first one 0 as well.

    Attributes:
        count: samples, int64.
        confidence: their mean confidence; NaN in an empty bin.
        accuracy: fraction of them that is classified correctly; NaN in an empty bin.
    """

    count: npt.NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean gap between confidence and accuracy, weighed by samples."""
        gaps = np.abs(np.nan_to_num(self.confidence) - np.nan_to_num(self.accuracy))
        return float((gaps * self.count).sum() / self.count.sum())


def calibration(probabilities: Array, labels: Array) -> Calibration:
    """Confidence against accuracy."""
    confidence = probabilities.max(1).astype(np.float64)
    correct = (predicted(probabilities) == labels).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count, sure, hits = (np.bincount(bins, weights, BINS) for weights in (None, confidence, correct))
    return Calibration(count.astype(np.int64), _ratio(sure, count), _ratio(hits, count))


SUMMARY = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
}
"""The numbers of :func:`summary`, with their names in print."""


def summary(probabilities: Array, labels: Array) -> dict[str, float]:
    """The numbers of :data:`SUMMARY`; higher is better in all but the last three."""
    matrix = confusion(predicted(probabilities), labels, probabilities.shape[1])
    return {
        "accuracy": accuracy(predicted(probabilities), labels),
        "balanced_accuracy": float(np.nanmean(recalls(matrix))),
        "macro_f1": float(np.nanmean(f1_scores(matrix))),
        "log_loss": log_loss(probabilities, labels),
        "brier_score": brier_score(probabilities, labels),
        "calibration_error": calibration(probabilities, labels).expected_error,
    }


def _ratio(numbers: Array, of: Array) -> Floats:
    """Element by element; NaN where nothing is divided by nothing."""
    ratios: Floats = np.divide(numbers, of, out=np.full(len(of), np.nan), where=of > 0)
    return ratios
