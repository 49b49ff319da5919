"""What is derived and refused before any work, on the tiny data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcdd import environment
from hpcdd.config import Config
from hpcdd.data.format import inspect
from hpcdd.data.reading import BoxReader
from hpcdd.errors import UserError
from hpcdd.problem import pose


def config(tiny: Path, **sections: Any) -> Config:
    base: dict[str, Any] = {"data": {"file": str(tiny)}, "model": {"name": "vgg2", "width": 8}}
    return Config(**{**base, **sections})


def test_splits_boxes_and_widths(tiny: Path) -> None:
    problem = pose(config(tiny, data={"file": str(tiny), "validation_fraction": 0.2}, decomposition={"overlap": 1}))
    assert problem.samples == {"train": 240, "validation": 60, "test": 90}
    assert len(problem.decomposition) == 4
    assert [problem.subimage_shape(s) for s in range(4)] == [(1, 7, 7)] * 4
    assert sum(problem.widths.local_parameters) <= problem.widths.global_parameters
    assert problem.labels("validation").dtype == torch.int64
    assert torch.bincount(problem.labels("validation")).tolist() == [20, 20, 20]


def test_the_samples_of_a_subdomain_are_its_box_standardised(tiny: Path) -> None:
    problem = pose(config(tiny, data={"file": str(tiny), "validation_fraction": 0.2}, decomposition={"grid": [2, 3]}))
    samples = problem.read(BoxReader(tiny), [4], "cpu")
    assert list(samples) == [4]
    box, info = problem.decomposition.boxes[4], inspect(tiny)
    assert (box.start, box.stop) == ((6, 4), (12, 8))
    stored = BoxReader(tiny).read("train", box)
    for split, n in problem.samples.items():
        inputs, labels = samples[4][split].batch(slice(0, n))
        assert inputs.shape == (n, 1, 6, 4)
        assert torch.equal(labels, problem.labels(split))
    rows = problem.rows["validation"][1]
    assert rows is not None
    inputs, _ = samples[4]["validation"].batch(slice(0, len(rows)))
    np.testing.assert_allclose(inputs.numpy(), (stored[rows] - info.mean[0]) / info.std[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("section", ["local", "aggregation"])
def test_early_stopping_needs_a_validation_split(tiny: Path, section: str) -> None:
    with pytest.raises(UserError, match=rf"{section}\.early_stopping needs a validation split.*validation_fraction"):
        pose(config(tiny, **{section: {"early_stopping": 2}}))
    split = {"file": str(tiny), "validation_fraction": 0.1}
    assert "validation" in pose(config(tiny, data=split, **{section: {"early_stopping": 2}})).samples


@pytest.mark.parametrize(
    ("decomposition", "words"),
    [
        ({"grid": [2, 13]}, ["decomposition.grid is [2, 13]", "12 pixels", "axis 1"]),
        ({"grid": [2, 2, 2]}, ["3 axes", "2 spatial axes", "12 x 12"]),
        ({"overlap": [1, 1, 1]}, ["decomposition.overlap is [1, 1, 1]"]),
        ({"boxes": [[[0, 0], [12, 12]], [[0, 0], [12, 13]]]}, ["boxes[1]", "axis 1", "12"]),
    ],
)
def test_decompositions_that_do_not_fit_the_images(tiny: Path, decomposition: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        pose(config(tiny, decomposition=decomposition))
    assert [word for word in words if word not in str(error.value)] == []


def test_the_finest_grid_that_vgg2_can_have(tiny: Path) -> None:
    problem = pose(config(tiny, decomposition={"grid": [6, 6]}, model={"name": "vgg2", "width": 32}))
    assert len(problem.widths.local_parameters) == 36
    assert sum(problem.widths.local_parameters) <= problem.widths.global_parameters


def test_more_local_cnns_than_the_global_cnn_has_room_for(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"model\.width"):
        pose(config(tiny, decomposition={"grid": [12, 12]}, model={"name": "vgg2", "width": 1}))


def test_a_missing_file_is_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.file: .*nowhere\.h5 is not there"):
        pose(config(tiny, data={"file": str(tmp_path / "nowhere.h5")}))


def test_too_little_memory_on_root_is_refused_with_both_numbers(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 4 * (2 + 2) * (300 + 90) * 4 * 3  # float32 logits of 4 subdomains and 3 classes: twice whole, two pieces
    monkeypatch.setattr(environment, "available_memory", lambda: needed)
    problem = pose(config(tiny))
    assert (problem.root_bytes, problem.root_available) == (needed, needed)
    monkeypatch.setattr(environment, "available_memory", lambda: needed - 1)
    with pytest.raises(UserError, match=r"root needs \d+\.\d GiB .* but \d+\.\d GiB are free"):
        pose(config(tiny))


def test_an_output_that_is_not_empty_is_refused_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    wrong = {"data": {"file": "nowhere.h5"}, "decomposition": {"grid": [99]}, "local": {"early_stopping": 1}}
    with pytest.raises(UserError, match=r"output is .* not empty"):
        pose(Config(output=str(tmp_path), **wrong))
    assert (tmp_path / "results.json").read_text() == "{}"


def test_an_own_cnn_that_gives_no_logits_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_of_problem.py").write_text(
        "import math, torch\n"
        "def wide(*, input_shape, num_classes, width):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), width))\n"
        "def options(*, input_shape, num_classes, width, depth):\n"
        "    return torch.nn.Identity()\n"
        "def text(**_):\n"
        "    return 'a CNN'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name, explanation in (
        ("own_of_problem:wide", r"\(2, 1, 6, 6\).*\(2, 8\).*\(2, 3\)"),
        ("own_of_problem:options", "depth"),
        ("own_of_problem:text", "a str, not a torch.nn.Module"),
        ("own_of_problem:absent", "can't be imported"),
        ("no_such_module_here:f", "PYTHONPATH"),
    ):
        with pytest.raises(UserError, match=f"{name}.*{explanation}"):
            pose(config(tiny, model={"name": name, "local_width": 8}))
