"""Splits that a source lacks are drawn class by class, from the seed."""

from __future__ import annotations

import numpy as np
import pytest

from hpcdd.core.errors import UserError
from hpcdd.data.prepare.selection import balanced, divided
from hpcdd.data.writing import Split

from .importers.sources import pixels_of


def collection(*counts: int) -> Split:
    """Images (1, 1, 2) that hold their own numbers, ``counts`` of each class, mixed."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return Split.from_array(np.arange(2 * len(labels), dtype=np.uint16).reshape(-1, 1, 1, 2), labels)


def test_fractions_of_every_class() -> None:
    source = collection(40, 20, 10)
    splits = divided({"train": source}, 0.2, 0.1, seed=1)
    assert list(splits) == ["train", "validation", "test"]
    counts = {name: np.bincount(part.labels).tolist() for name, part in splits.items()}
    assert counts == {"train": [28, 14, 7], "validation": [4, 2, 1], "test": [8, 4, 2]}
    rows = {name: pixels_of(part)[:, 0, 0, 0] // 2 for name, part in splits.items()}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(70))
    for name, part in splits.items():
        assert np.array_equal(source.labels[rows[name]], part.labels)
        assert (np.diff(rows[name].astype(int)) > 0).all()  # in the order of the source


def test_the_seed_fixes_the_splits() -> None:
    first, same, other = (divided({"train": collection(30, 30)}, 0.5, 0.0, seed) for seed in (1, 1, 2))
    assert np.array_equal(pixels_of(first["test"]), pixels_of(same["test"]))
    assert not np.array_equal(pixels_of(first["test"]), pixels_of(other["test"]))


def test_a_test_split_is_made_by_default_where_there_is_none() -> None:
    parts = {"train": collection(10, 10)}
    assert {name: len(part.labels) for name, part in divided(parts, None, 0.0, 0).items()} == {"train": 16, "test": 4}
    parts["test"] = collection(3, 3)
    made = divided(parts, None, 0.5, 0)
    assert {name: len(part.labels) for name, part in made.items()} == {"train": 10, "validation": 10, "test": 6}


@pytest.mark.parametrize(
    ("test", "validation", "message"),
    [
        (0.3, 0.0, r"--test-fraction is 0\.3, but the source already has a test split \(6 samples\); leave it out"),
        (None, 1.0, r"--validation-fraction is 1; use a number between 0 and 1"),
        (None, -0.1, r"--validation-fraction is -0\.1; use a number between"),
        (None, float("nan"), r"--validation-fraction is nan; use a number between"),
    ],
)
def test_wrong_fractions(test: float | None, validation: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        divided({"train": collection(9, 9), "test": collection(3, 3)}, test, validation, 0)


def test_nothing_left_and_nothing_set_aside() -> None:
    with pytest.raises(UserError, match=r"--test-fraction 0\.6 and --validation-fraction 0\.4 leave nothing"):
        divided({"train": collection(9, 9)}, 0.6, 0.4, 0)
    with pytest.raises(UserError, match="the test split would have 0 samples"):
        divided({"train": collection(1, 1, 1)}, 0.5, 0.0, 0)


def test_balanced_takes_the_first_of_each_class() -> None:
    source = collection(9, 5)
    chosen = pixels_of(balanced(source, "train", 6))[:, 0, 0, 0] // 2
    assert np.bincount(source.labels[chosen]).tolist() == [3, 3]
    for label in (0, 1):
        first = np.flatnonzero(source.labels == label)[:3]
        assert set(first) <= set(chosen)
    with pytest.raises(UserError, match="but one class has only 5 in the source"):
        balanced(source, "train", 12)
