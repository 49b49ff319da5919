"""The metrics, against values worked out by hand and against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpcdd.artifacts import metrics

# Two of class 0, three of class 1, one of class 2; class 3 has neither samples nor predictions.
LABELS = np.array([0, 0, 1, 1, 1, 2])
PREDICTED = np.array([0, 1, 1, 1, 0, 1])
MATRIX = metrics.confusion(PREDICTED, LABELS, 4)


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    assert MATRIX.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert metrics.accuracy(PREDICTED, LABELS) == 3 / 6 == MATRIX.trace() / MATRIX.sum()


def test_each_class_has_what_was_counted_and_a_missing_one_nothing() -> None:
    np.testing.assert_allclose(metrics.recalls(MATRIX), [1 / 2, 2 / 3, 0, math.nan])
    np.testing.assert_allclose(metrics.f1_scores(MATRIX), [1 / 2, 4 / 7, 0, math.nan])
    summary = metrics.summary(np.eye(4)[PREDICTED], LABELS)
    assert summary["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert summary["macro_f1"] == pytest.approx((1 / 2 + 4 / 7) / 3)


def test_log_loss_and_brier_score_of_a_known_forecast() -> None:
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32)
    assert metrics.log_loss(probabilities, np.array([0, 1])) == pytest.approx((math.log(2) - math.log(0.75)) / 2)
    assert metrics.brier_score(probabilities, np.array([0, 1])) == pytest.approx((0.5 + 0.125) / 2)


def test_a_sure_mistake_costs_much_and_not_infinity() -> None:
    sure = np.array([[1.0, 0.0]], np.float32)
    assert 80 < metrics.log_loss(sure, np.array([1])) < 100
    assert metrics.brier_score(sure, np.array([1])) == 2
    assert metrics.log_loss(sure, np.array([0])) == metrics.brier_score(sure, np.array([0])) == 0


def test_bins_hold_their_upper_end() -> None:
    confidence = np.array([1.0, 14 / 15 + 1e-9, 14 / 15 - 1e-9, 8 / 15])
    calibration = metrics.calibration(np.stack([confidence, 1 - confidence], 1), np.array([0, 1, 0, 0]))
    assert calibration.count.tolist() == [0] * 7 + [1, 0, 0, 0, 0, 0, 1, 2]
    np.testing.assert_allclose(calibration.accuracy[[7, 13, 14]], [1, 1, 0.5])
    np.testing.assert_allclose(calibration.confidence[14], (1 + 14 / 15) / 2, atol=1e-8)
    assert np.isnan(calibration.accuracy[0])
    assert calibration.expected_error == pytest.approx((7 / 15 + 1 / 15 + abs(1 + 14 / 15 - 1)) / 4, abs=1e-8)


def test_forecasts_drawn_from_themselves_are_calibrated() -> None:
    generator = np.random.default_rng(0)
    first = generator.uniform(0, 1, 40_000)
    labels = (generator.random(40_000) > first).astype(np.int64)
    calibration = metrics.calibration(np.stack([first, 1 - first], 1), labels)
    assert calibration.count.sum() == 40_000
    assert calibration.expected_error < 0.01


def test_the_summary_has_what_is_printed() -> None:
    probabilities = np.eye(4, dtype=np.float32)[PREDICTED]
    summary = metrics.summary(probabilities, LABELS)
    assert summary.keys() == metrics.SUMMARY.keys()
    assert (summary["accuracy"], summary["brier_score"]) == (0.5, 1.0)
    assert summary["calibration_error"] == 0.5
