"""The validation split: a partition that takes a fraction of each class and depends on the seed alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdd.core.errors import UserError
from hpcdd.data.format import inspect
from hpcdd.data.split import split_rows, stratified
from hpcdd.data.writing import Split, write_dataset

from ..conftest import make_split

labels_of = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(lambda values: np.array(values, np.int64))
fractions = st.floats(0.001, 0.999)


@given(labels=labels_of, fraction=fractions, seed=st.integers(0, 2**63))
def test_partition_with_a_fraction_of_each_class(labels: np.ndarray, fraction: float, seed: int) -> None:
    stay, aside = stratified(labels, fraction, seed)
    assert sorted([*stay, *aside]) == list(range(len(labels)))
    assert np.array_equal(stay, np.sort(stay))
    assert np.array_equal(aside, np.sort(aside))
    for label in np.unique(labels):
        size = int((labels == label).sum())
        count = int((labels[aside] == label).sum())
        assert size - count >= 1
        assert count >= 1 or size == 1
        # The nearest count to the fraction, where at least one can go and one can stay.
        assert abs(count - fraction * size) <= 0.5 or count in (1, size - 1)


@given(labels=labels_of, fraction=fractions, seed=st.integers(0, 2**40))
def test_the_same_seed_gives_the_same_split(labels: np.ndarray, fraction: float, seed: int) -> None:
    np.random.seed(0)  # noqa: NPY002 - numpy's global state must not matter
    first = stratified(labels, fraction, seed)
    np.random.seed(1)  # noqa: NPY002
    second = stratified(labels, fraction, seed)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_another_seed_gives_another_split() -> None:
    labels = np.arange(1000) % 10
    drawn = [stratified(labels, 0.1, seed)[1] for seed in range(20)]
    assert all(np.bincount(labels[rows]).tolist() == [10] * 10 for rows in drawn)
    assert len({rows.tobytes() for rows in drawn}) == 20


def test_it_is_random_and_not_the_first_of_each_class() -> None:
    labels = np.repeat([0, 1], 500)
    aside = np.concatenate([stratified(labels, 0.5, seed)[1] % 500 for seed in range(10)])
    assert abs(aside.mean() - 249.5) < 10  # three standard errors


def test_fraction_zero_sets_nothing_aside() -> None:
    stay, aside = stratified(np.arange(12) % 3, 0.0, 0)
    assert stay.tolist() == list(range(12))
    assert aside.size == 0


def test_rows_of_a_file_without_validation(tiny: Path) -> None:
    info = inspect(tiny)
    assert split_rows(info, 0.0, 0) == {"train": ("train", None), "test": ("test", None)}
    rows = split_rows(info, 0.2, 0)
    assert {split: stored for split, (stored, _) in rows.items()} == {
        "train": "train",
        "validation": "train",
        "test": "test",
    }
    assert len(rows["train"][1]) == 240
    assert np.bincount(info.labels["train"][rows["validation"][1]]).tolist() == [20, 20, 20]
    assert rows["test"][1] is None


def test_a_file_with_validation(tmp_path: Path) -> None:
    path = tmp_path / "d.h5"
    splits = {"train": make_split(30), "validation": make_split(9, seed=1), "test": make_split(9, seed=2)}
    write_dataset(path, splits, name="d", class_names="abc")
    info = inspect(path)
    assert set(split_rows(info, 0.0, 0)) == {"train", "validation", "test"}
    with pytest.raises(UserError, match=r"fraction is 0.1, but .*d.h5 already has a validation split .*\(9 samples\)"):
        split_rows(info, 0.1, 0)


def test_too_few_samples_for_a_validation_split(tmp_path: Path) -> None:
    images = np.arange(36, dtype=np.uint8).reshape(4, 1, 3, 3)
    split = Split.from_array(images, np.arange(4))
    write_dataset(tmp_path / "d.h5", {"train": split, "test": split}, name="d", class_names=list("abcd"))
    with pytest.raises(UserError, match="no class of .* has two training samples"):
        split_rows(inspect(tmp_path / "d.h5"), 0.5, 0)
