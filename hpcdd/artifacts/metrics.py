"""How good decisions are: pure functions of probabilities and labels.

``probabilities`` is float (n, K), each row adding up to 1; ``decided`` and ``labels`` are integers (n,) in [0, K).
A class without samples has no recall, and one that is neither there nor decided for has no F1: NaN, which means leave
out.
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


def decided(probabilities: Array) -> npt.NDArray[np.int64]:
    """The class with the highest probability, (n,); of several the first."""
    found: npt.NDArray[np.int64] = probabilities.argmax(1).astype(np.int64)
    return found


def accuracy(decided: Array, labels: Array) -> float:
    """Share of the samples that are classified correctly."""
    return int((decided == labels).sum()) / len(labels)


def confusion(decided: Array, labels: Array, num_classes: int) -> npt.NDArray[np.int64]:
    """int64 (K, K): how many samples of class i (row) are decided to be of class j (column)."""
    pairs = np.bincount(labels.astype(np.int64) * num_classes + decided, minlength=num_classes**2)
    return pairs.astype(np.int64).reshape(num_classes, num_classes)


@dataclass(frozen=True)
class ByClass:
    """What a confusion matrix says of each class, float64 (K,).

    Attributes:
        recall: share of its samples that are classified correctly (the class's accuracy).
        precision: share of the decisions for it that are right.
        f1: harmonic mean of both.
    """

    recall: Floats
    precision: Floats
    f1: Floats


def by_class(matrix: Array) -> ByClass:
    """Recall, precision and F1 from the (K, K) of :func:`confusion`."""
    right, truth, chosen = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return ByClass(_ratio(right, truth), _ratio(right, chosen), _ratio(2 * right, truth + chosen))


def balanced_accuracy(matrix: Array) -> float:
    """Mean recall of the classes that have samples."""
    return float(np.nanmean(by_class(matrix).recall))


def macro_f1(matrix: Array) -> float:
    """Mean F1 of the classes that have samples or decisions."""
    return float(np.nanmean(by_class(matrix).f1))


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
    """How often decisions of like confidence (probability of the decided class) are right; by bin, (BINS,).

    Bin i holds confidences in (i / BINS, (i + 1) / BINS], the first one 0 as well.

    Attributes:
        count: samples, int64.
        confidence: their mean confidence; NaN in an empty bin.
        accuracy: share of them that is classified correctly; NaN in an empty bin.
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
    right = (decided(probabilities) == labels).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    count, sure, hits = (np.bincount(bins, weights, BINS) for weights in (None, confidence, right))
    return Calibration(count.astype(np.int64), _ratio(sure, count), _ratio(hits, count))


SUMMARY = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "brier_score": "Brier score",
    "calibration_error": "calibration error",
}
"""The numbers of :func:`summary`, and what they are called in print."""


def summary(probabilities: Array, labels: Array) -> dict[str, float]:
    """The numbers of :data:`SUMMARY`; in all but the last three more is better."""
    matrix = confusion(decided(probabilities), labels, probabilities.shape[1])
    return {
        "accuracy": accuracy(decided(probabilities), labels),
        "balanced_accuracy": balanced_accuracy(matrix),
        "macro_f1": macro_f1(matrix),
        "log_loss": log_loss(probabilities, labels),
        "brier_score": brier_score(probabilities, labels),
        "calibration_error": calibration(probabilities, labels).expected_error,
    }


def _ratio(numbers: Array, of: Array) -> Floats:
    """Element by element; NaN where nothing is divided by nothing."""
    ratios: Floats = np.divide(numbers, of, out=np.full(len(of), np.nan), where=of > 0)
    return ratios
