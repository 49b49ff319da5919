"""The runs of a matrix, and their names."""

from __future__ import annotations

import pytest

from hpcdd.studies.matrix import MOST_RUNS, expand, label_of


def test_every_combination_is_a_run_and_the_last_axis_is_fastest() -> None:
    runs = expand({"decomposition.grid": [[2, 2], [4, 4]], "local.learning_rate": [1e-3], "seed": [0, 1]})
    assert [run.id for run in runs] == [
        f"grid={grid},learning_rate=0.001,seed={seed}" for grid in ("2x2", "4x4") for seed in (0, 1)
    ]
    assert runs[1].fields == {"decomposition.grid": [2, 2], "local.learning_rate": 1e-3, "seed": 1}
    assert runs[1].labels == {"decomposition.grid": "2x2", "local.learning_rate": "0.001", "seed": "1"}


def test_cases_change_several_fields_together() -> None:
    runs = expand({"network": {"VGG": {"model.name": "vgg3", "local.epochs": 2}, "plain": {}}, "seed": [3]})
    assert [run.id for run in runs] == ["network=VGG,seed=3", "network=plain,seed=3"]
    assert runs[0].fields == {"model.name": "vgg3", "local.epochs": 2, "seed": 3}
    assert runs[0].labels == {"network": "VGG", "seed": "3"}
    base = {"name": "a", "local": {"epochs": 1, "batch_size": 8}}
    assert runs[0].tree(base) == {
        "name": "a",
        "local": {"epochs": 2, "batch_size": 8},
        "model": {"name": "vgg3"},
        "seed": 3,
    }
    assert runs[1].tree(base) == {**base, "seed": 3}
    assert base == {"name": "a", "local": {"epochs": 1, "batch_size": 8}}


def test_fields_of_one_last_name_are_named_in_full() -> None:
    (run,) = expand({"local.epochs": [1], "coherent.epochs": [2]})
    assert run.id == "local.epochs=1,coherent.epochs=2"


def test_names_are_those_of_folders() -> None:
    (run,) = expand({"a case": {"../x y/\u00e4": {"seed": 1}}})
    assert run.id == "a-case=..-x-y"
    (run,) = expand({"case": {"l" * 300: {}}})
    assert len(run.id) < 200
    files = [run.id for run in expand({"data.file": ["a/ct.h5", "b/ct.h5", "embedded"]})]
    assert files == ["file=a-ct.h5", "file=b-ct.h5", "file=embedded"]


@pytest.mark.parametrize(
    ("field", "value", "label"),
    [
        ("decomposition.overlap", 0, "0"),
        ("decomposition.overlap", [2, 0], "2x0"),
        ("decomposition.coarse", True, "true"),
        ("data.subset", None, "none"),
        ("coherent.starts", ["transfer", "scratch"], "transfer+scratch"),
        ("coherent.starts", [], "none"),
        ("model.options", {"b": 1, "a": "x"}, '{"a": "x", "b": 1}'),
    ],
)
def test_values_in_words(field: str, value: object, label: str) -> None:
    assert label_of(field, value) == label


def test_runs_that_are_the_same_or_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="the matrix has two runs seed=0; list each value once"):
        expand({"seed": [0, 0]})
    with pytest.raises(ValueError, match=f"the matrix has 1,000,000 runs; a study can have at most {MOST_RUNS:,}"):
        expand({"seed": list(range(1000)), "local.epochs": list(range(1, 1001))})
