"""Which samples are shown, and that their images are the stored ones."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcdd.artifacts.evaluation_cache import Arrays
from hpcdd.config.schema import Config, DataSettings
from hpcdd.data.problem import build_problem
from hpcdd.phases import attribution_examples
from hpcdd.phases.attribution_examples import choose, predictions_of

from ..artificial import make_predictions


def arrays_of(n: int, num_classes: int = 3) -> tuple[np.ndarray, Arrays]:
    predictions = make_predictions(n, num_classes=num_classes)
    strategies = {f"strategies/{name}": values for name, values in predictions.strategies.items()}
    return predictions.labels, {
        **strategies,
        "local/decisions": predictions.local,
        "local/confidence": predictions.confidence,
    }


def test_reasons_are_true_and_the_clearest_cases_come_first() -> None:
    labels, arrays = arrays_of(900)
    shown, reasons = choose(labels, arrays)
    assert len(shown) == len(set(shown.tolist())) == len(reasons) == 3 * attribution_examples.MOST - 10
    correct = (arrays["local/decisions"] == labels[:, None]).sum(1)
    final, majority = (arrays[f"strategies/{name}"].argmax(1) == labels for name in ("coherent_transfer", "majority"))
    by_reason = {reason: shown[[r == reason for r in reasons]] for reason in ("example", "rescued", "lost")}
    assert np.bincount(labels[by_reason["example"]]).tolist() == [2, 2, 2]
    rescued, lost = by_reason["rescued"], by_reason["lost"]
    assert len(rescued) == len(lost) == attribution_examples.MOST
    assert final[rescued].all()
    assert (correct[rescued] < 2).all()
    assert (np.diff(correct[rescued]) >= 0).all()
    assert not final[lost].any()
    assert majority[lost].all()
    assert (np.diff(correct[lost]) <= 0).all()


def test_of_many_classes_each_is_shown_once_while_there_is_room() -> None:
    labels, arrays = arrays_of(30)
    labels = np.arange(30) % 15
    _, reasons = choose(labels, arrays)
    assert reasons.count("example") <= attribution_examples.MOST
    first = choose(labels, arrays)[0][[reason == "example" for reason in reasons]]
    assert len(set(labels[first].tolist())) >= min(len(first), 13)


def test_images_are_whole_and_as_they_are_stored(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(data=DataSettings(file=str(tiny), classes=("two", "four")))
    problem = build_problem(config)
    rows = np.arange(4, 44)
    labels, arrays = arrays_of(40, num_classes=2)
    assert labels.tolist() == problem.labels("test")[4:44].tolist()
    arrays["strategies/majority"][0], arrays["strategies/coherent_transfer"][0] = [0.9, 0.1], [0.1, 0.9]  # lost
    predictions = predictions_of(problem, "test", "logits", rows, arrays)
    assert (predictions.samples, predictions.is_whole, predictions.class_names) == (60, False, ("two", "four"))
    _, of_split = problem.rows["test"]
    assert of_split is not None
    with h5py.File(tiny) as file:
        stored = file["test/images"][:][of_split[rows[predictions.shown]]]
    assert predictions.images.dtype == np.uint8
    np.testing.assert_array_equal(predictions.images, stored)
    assert set(predictions.reasons) == {"example", "rescued", "lost"}

    monkeypatch.setattr(attribution_examples, "_BYTES", 4 * 144 + 10)
    few = predictions_of(problem, "test", "logits", rows, arrays)
    assert len(few.images) == len(few.reasons) == 4
    assert set(few.reasons) == {"example", "rescued", "lost"}
    np.testing.assert_array_equal(few.images, predictions.images[:4])
