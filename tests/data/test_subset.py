"""Less of a data set: the chosen classes, numbered anew, and samples in proportion."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.data.format import inspect
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.split import split_rows
from hpcdd.data.subset import in_proportion, with_classes
from hpcdd.data.writing import Split, write_dataset


@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=200).map(lambda values: np.array(values, np.int64)),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 2**63),
)
def test_samples_in_proportion(labels: np.ndarray, fraction: float, seed: int) -> None:
    classes, sizes = np.unique(labels, return_counts=True)
    count = max(len(classes), round(fraction * len(labels)))
    rows = in_proportion(labels, count, seed)
    assert len(rows) == count
    assert np.array_equal(rows, np.unique(rows))
    assert np.array_equal(rows, in_proportion(labels, count, seed))
    counts = np.array([(labels[rows] == c).sum() for c in classes])
    assert (counts >= 1).all()
    exact = count * sizes / len(labels)
    assert ((counts <= np.ceil(exact)) | (counts == 1)).all()
    if (exact >= 1).all():
        assert (np.abs(counts - exact) < 1).all()


def test_subsets_are_random_and_grow() -> None:
    labels = np.arange(1000) % 10
    small, large, other = in_proportion(labels, 50, 1), in_proportion(labels, 200, 1), in_proportion(labels, 50, 2)
    assert set(small) < set(large)
    assert set(small) != set(other)
    assert small.max() > 500


def test_subset_and_validation_of_it(tiny: Path) -> None:
    info = inspect(tiny)
    rows = split_rows(info, 0.2, 3, 60)
    (_, train), (_, validation) = rows["train"], rows["validation"]
    assert train is not None
    assert validation is not None
    assert (len(train), len(validation)) == (48, 12)
    assert sorted([*train, *validation]) == in_proportion(info.labels["train"], 60, 3).tolist()
    assert rows["test"] == ("test", None)
    assert split_rows(info, 0.0, 3, 300)["train"] == ("train", None)
    for count in (2, 301):
        with pytest.raises(UserError, match=rf"data\.subset is {count}, but .* 300 training samples .*use 3 to 300"):
            split_rows(info, 0.0, 0, count)


@pytest.mark.parametrize("classes", [["four", "two"], [0, 2], [2, "two"], ["2", "0"]], ids=str)
def test_classes_are_numbered_anew_in_the_files_order(tiny: Path, classes: list[int | str]) -> None:
    info, some = inspect(tiny), with_classes(inspect(tiny), classes)
    assert (some.class_names, some.num_classes) == (("two", "four"), 2)
    for split, labels in info.labels.items():
        assert some.labels[split].tolist() == [{0: 0, 1: -1, 2: 1}[label] for label in labels]


def test_their_images_are_read_and_no_others(tiny: Path) -> None:
    config = Config.model_validate(
        {
            "data": {"file": str(tiny), "classes": ["three", "four"], "subset": 100, "validation_fraction": 0.1},
            "model": {"name": "vgg1", "local_width": 2},
        }
    )
    problem = build_problem(config)
    assert problem.samples == {"train": 90, "validation": 10, "test": 60}
    whole = problem.read_whole(BoxReader(tiny), "cpu")
    with h5py.File(tiny) as file:
        images, labels = file["test/images"][:], file["test/labels"][:]
    inputs, targets = whole["test"].batch(slice(None))
    assert targets.tolist() == [label - 1 for label in labels if label > 0]
    expected = (images[labels > 0] - problem.info.mean[0]) / problem.info.std[0]
    np.testing.assert_allclose(inputs.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert set(problem.labels("train").tolist()) == {0, 1}


def test_a_class_without_training_samples_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Earlier revisions wrote such files."""
    shutil.copy(tiny, tmp_path / "d.h5")
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file.attrs["class_names"] = ["two", "three", "four", "five"]
        del file.attrs["fingerprint"], file["train/images_checksums"], file["test/images_checksums"]
    data = {"file": str(tmp_path / "d.h5")}
    with pytest.raises(UserError, match=r"1 of 4 classes have no training samples .*d\.h5: five; .* in data\.classes"):
        build_problem(Config.model_validate({"data": data}))
    with pytest.raises(UserError, match=r"1 of 3 classes have no training samples"):
        build_problem(Config.model_validate({"data": {**data, "classes": [0, 1, 3]}}))
    with pytest.raises(UserError, match=r"1 of 2 classes have no training samples"):
        build_problem(Config.model_validate({"data": {**data, "classes": ["two", "five"]}}))
    assert build_problem(Config.model_validate({"data": {**data, "classes": [0, 1, 2]}})).info.num_classes == 3


def test_what_is_not_there_is_named(tiny: Path, tmp_path: Path) -> None:
    info = inspect(tiny)
    for classes, message in (
        (["tow", "four"], r"names 'tow', which .*tiny.h5 does not have; did you mean two\?"),
        ([0, 3], r"names 3, .*; use names \(two, three, four\) or numbers from 0 to 2"),
        (["two", 0], r"names class 'two' twice"),
    ):
        with pytest.raises(UserError, match=message):
            with_classes(info, classes)
    images = np.random.default_rng(0).integers(0, 9, (8, 1, 4, 4)).astype(np.uint8)
    splits = {
        "train": Split.from_array(images, np.array([0, 0, 1, 1, 2, 2, 0, 3])),
        "test": Split.from_array(images, np.array([0] * 7 + [2])),
    }
    numbers = write_dataset(tmp_path / "n.h5", splits, name="n", class_names=["1", "2", "3", "4"])
    with pytest.raises(UserError, match=r"leaves 1 samples in split 'test'"):
        with_classes(numbers, ["2", "3"])  # names, not numbers
    assert with_classes(numbers, [1, "2"]).class_names == ("1", "2")
    assert with_classes(numbers, [0, "2"]).class_names == ("1", "2")  # there is no name 0
