"""What is derived and refused before any work, on the tiny data set."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from hpcdd.config.schema import Config
from hpcdd.core import environment
from hpcdd.core.errors import UserError
from hpcdd.data.coarse import average
from hpcdd.data.format import inspect
from hpcdd.data.problem import (
    GATHER_BYTES,
    Problem,
    build_problem,
    bytes_on_root,
    check_images,
    check_memory,
    check_shards,
)
from hpcdd.data.reading import BoxReader
from hpcdd.decomposition.rank_layout import RankLayout, RankPlacement, assign


def config(tiny: Path, **sections: Any) -> Config:
    base: dict[str, Any] = {"data": {"file": str(tiny)}, "model": {"name": "vgg2", "width": 8}}
    return Config(**{**base, **sections})


def test_splits_boxes_and_widths(tiny: Path) -> None:
    problem = build_problem(
        config(tiny, data={"file": str(tiny), "validation_fraction": 0.2}, decomposition={"overlap": 1})
    )
    assert problem.samples == {"train": 240, "validation": 60, "test": 90}
    assert len(problem.decomposition) == 4
    assert [problem.subimage_shape(s) for s in range(4)] == [(1, 7, 7)] * 4
    assert sum(problem.widths.local_parameters) <= problem.widths.global_parameters
    assert problem.labels("validation").dtype == torch.int64
    assert torch.bincount(problem.labels("validation")).tolist() == [20, 20, 20]


def test_the_samples_of_a_subdomain_are_its_box_standardised(tiny: Path) -> None:
    problem = build_problem(
        config(tiny, data={"file": str(tiny), "validation_fraction": 0.2}, decomposition={"grid": [2, 3]})
    )
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


def normalised(images: Any, tiny: Path) -> Any:
    info = inspect(tiny)
    return (images - info.mean[0]) / info.std[0]


@pytest.mark.parametrize(("baseline", "shape"), [(False, (1, 6, 6)), (True, (1, 12, 12))])
def test_images_that_memory_has_no_room_for(tiny: Path, baseline: bool, shape: tuple[int, ...]) -> None:
    settings, size = config(tiny, baseline={"enabled": baseline}), 4 * shape[1] * shape[2]
    check_images(settings, (1, 12, 12), [(1, 6, 6)] * 4, size)
    message = re.escape(f"a single image of shape {shape} takes 0.0 GiB in a CNN, but 0.0 GiB are free; use more")
    with pytest.raises(UserError, match=message):
        check_images(settings, (1, 12, 12), [(1, 6, 6)] * 4, size - 1)


def test_the_coarse_subdomain_is_the_averaged_image(tiny: Path) -> None:
    settings = {"grid": [2, 3], "overlap": 1, "coarse": True}
    problem = build_problem(config(tiny, decomposition=settings, model={"name": "vgg2", "width": 8, "local_width": 2}))
    assert len(problem.decomposition) == 7
    assert [problem.subimage_shape(s) for s in (0, 4, 6)] == [(1, 7, 5), (1, 7, 6), (1, 6, 6)]
    assert len(problem.widths.local_parameters) == 7
    reader = BoxReader(tiny)
    samples = problem.read(reader, [6, 0], "cpu")
    assert list(samples) == [6, 0]
    with h5py.File(tiny) as file:
        stored = file["test/images"][:]
    inputs, labels = samples[6]["test"].batch(slice(0, 90))
    assert inputs.shape == (90, 1, 6, 6)
    assert torch.equal(labels, problem.labels("test"))
    np.testing.assert_allclose(inputs, normalised(average(stored, (2, 2)), tiny), rtol=1e-5, atol=1e-6)
    inputs, _ = samples[0]["test"].batch(slice(0, 90))
    np.testing.assert_allclose(inputs, normalised(stored[:, :, :7, :5], tiny), rtol=1e-5, atol=1e-6)


def test_a_grid_that_leaves_nothing_to_average_is_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"decomposition\.coarse is true, .*12 x 12"):
        build_problem(config(tiny, decomposition={"grid": [1, 1], "coarse": True}))


def test_whole_images_by_split(tiny: Path) -> None:
    problem = build_problem(
        config(tiny, data={"file": str(tiny), "validation_fraction": 0.2}, decomposition={"coarse": True})
    )
    reader = BoxReader(tiny)
    samples = problem.read_whole(reader, "cpu")
    assert {split: len(part) for split, part in samples.items()} == problem.samples
    with h5py.File(tiny) as file:
        stored = {name: file[f"{name}/images"][:] for name in ("train", "test")}
    for split, (name, rows) in problem.rows.items():
        inputs, labels = samples[split].batch(slice(None))
        expected = stored[name] if rows is None else stored[name][rows]
        np.testing.assert_allclose(inputs, normalised(expected, tiny), rtol=1e-5, atol=1e-6)
        assert torch.equal(labels, problem.labels(split))
    assert reader.bytes_read == sum(images.nbytes for images in stored.values())


@pytest.mark.parametrize("section", ["local", "aggregation", "coherent", "baseline"])
def test_early_stopping_needs_a_validation_split(tiny: Path, section: str) -> None:
    with pytest.raises(UserError, match=rf"{section}\.early_stopping needs a validation split.*validation_fraction"):
        build_problem(config(tiny, **{section: {"early_stopping": 2}}))
    split = {"file": str(tiny), "validation_fraction": 0.1}
    assert "validation" in build_problem(config(tiny, data=split, **{section: {"early_stopping": 2}})).samples


@pytest.mark.parametrize(
    ("decomposition", "fragments"),
    [
        ({"grid": [2, 13]}, ["decomposition.grid is [2, 13]", "12 pixels", "axis 1"]),
        ({"grid": [2, 2, 2]}, ["3 axes", "2 spatial axes", "12 x 12"]),
        ({"overlap": [1, 1, 1]}, ["decomposition.overlap is [1, 1, 1]"]),
        ({"boxes": [[[0, 0], [12, 12]], [[0, 0], [12, 13]]]}, ["boxes[1]", "axis 1", "12"]),
    ],
)
def test_decompositions_that_do_not_fit_the_images(tiny: Path, decomposition: Any, fragments: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build_problem(config(tiny, decomposition=decomposition))
    assert [fragment for fragment in fragments if fragment not in str(error.value)] == []


def test_the_finest_grid_that_vgg2_can_have(tiny: Path) -> None:
    problem = build_problem(config(tiny, decomposition={"grid": [6, 6]}, model={"name": "vgg2", "width": 32}))
    assert len(problem.widths.local_parameters) == 36
    assert sum(problem.widths.local_parameters) <= problem.widths.global_parameters


def test_more_local_cnns_than_the_global_cnn_has_room_for(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"model\.width"):
        build_problem(config(tiny, decomposition={"grid": [12, 12]}, model={"name": "vgg2", "width": 1}))


def test_a_missing_file_is_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.file: .*nowhere\.h5 is not there"):
        build_problem(config(tiny, data={"file": str(tmp_path / "nowhere.h5")}))


def test_too_little_memory_on_root_is_refused_with_both_numbers(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 4 * (1 + 2) * (300 + 90) * 4 * 3  # float32 logits of 4 subdomains and 3 classes: once, and two buffers
    monkeypatch.setattr(environment, "available_memory", lambda: needed)
    problem = build_problem(config(tiny))
    assert (problem.root_bytes, problem.root_available) == (needed, needed)
    monkeypatch.setattr(environment, "available_memory", lambda: needed - 1)
    with pytest.raises(UserError, match=r"root needs \d+\.\d GiB .* but only \d+\.\d GiB are free"):
        build_problem(config(tiny))


def test_where_nothing_is_gathered_root_needs_no_memory(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "available_memory", lambda: 50_000)  # the DNN has 40,460
    assert build_problem(config(tiny, aggregation={"placement": "distributed"})).root_bytes == 0


def test_small_data_sets_take_three_copies_of_the_logits() -> None:
    assert bytes_on_root(100, 4 * 10) == 3 * (4 * 100 * 4 * 10)


def test_large_data_sets_take_one_copy_and_two_buffers() -> None:
    logits = 4 * 1_281_167 * 64 * 1000  # ImageNet on 8 x 8 subdomains: 305 GiB of logits
    assert bytes_on_root(1_281_167, 64 * 1000) == logits + 2 * GATHER_BYTES


def test_buffers_stop_growing_where_the_logits_fill_one() -> None:
    fitting = GATHER_BYTES // (4 * 4 * 10)
    samples = (1, fitting - 1, fitting + 1, 10 * fitting)
    increases = [bytes_on_root(n + 1, 4 * 10) - bytes_on_root(n, 4 * 10) for n in samples]
    assert increases == [3 * 160, 3 * 160, 160, 160]


def test_what_fits_passes_and_what_does_not_is_reported_with_both_numbers() -> None:
    check_memory(5 << 30, 5 << 30)
    with pytest.raises(UserError, match=r"root needs 305\.6 GiB .* but only 7\.0 GiB are free"):
        check_memory(bytes_on_root(1_281_167, 64 * 1000), 7 << 30)
    with pytest.raises(UserError):
        check_memory((5 << 30) + 1, 5 << 30)


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
        ("own_of_problem:absent", "has no 'absent'"),
        ("no_such_module_here:f", "PYTHONPATH"),
    ):
        with pytest.raises(UserError, match=f"{name}.*{explanation}"):
            build_problem(config(tiny, model={"name": name, "local_width": 8}))


def test_code_that_the_list_of_modules_leaves_out_does_not_run(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_of_problem.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    chosen = config(tiny, model={"name": "foreign_of_problem:make"})
    monkeypatch.setenv("HPCDD_MODEL_MODULES", "mine")
    with pytest.raises(UserError, match="HPCDD_MODEL_MODULES is 'mine'"):
        build_problem(chosen)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("HPCDD_MODEL_MODULES", "mine,foreign_of_problem")
    with pytest.raises(UserError, match="has no 'make'"):
        build_problem(chosen)
    assert (tmp_path / "ran").exists()


DRAWING = """
import torch
class CNN(torch.nn.Module):
    def __init__(self, input_shape, num_classes, width, function):
        super().__init__()
        self.function, self.drop, self.last = function, torch.nn.Dropout2d(), torch.nn.LazyLinear(num_classes)
        self(torch.zeros(1, *input_shape))
    def forward(self, x):
        x = torch.nn.functional.dropout2d(x, 0.5, self.training) if self.function else self.drop(x)
        return self.last(x.flatten(1))
"""


@pytest.fixture
def drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The section ``model`` of a CNN that draws in a function or in a module."""
    (tmp_path / "own_that_draws.py").write_text(DRAWING)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda *, function: {
        "name": "own_that_draws:CNN",
        "local_width": 2,
        "options": {"function": function},
    }


@pytest.mark.parametrize("sections", [{}, {"coherent": {"parallelism": "data"}}], ids=["replicas", "data"])
def test_random_numbers_that_ranks_can_not_share_are_refused(
    tiny: Path, drawing: Callable[..., dict[str, Any]], sections: dict[str, Any]
) -> None:
    model, ranks = drawing(function=True), 2 if sections else 4
    message = refusal(tiny, ranks, model=model, **sections)
    assert re.search(r"shared_batches is 'exact'.*own_that_draws:CNN.*torch's bernoulli_.*modules.*or.*fast", message)
    assert refusal(tiny, ranks, model=model, shared_batches="fast", **sections) == ""
    assert refusal(tiny, ranks, model=drawing(function=False), **sections) == ""
    assert refusal(tiny, 1, model=model, **sections) == ""


def test_dropout_that_can_not_be_scaled_is_refused(tiny: Path, drawing: Callable[..., dict[str, Any]]) -> None:
    coherent = {"dropout_scale": 0.5}
    with pytest.raises(UserError, match=r"dropout_scale is 0.5.*own_that_draws:CNN.*torch's bernoulli_.*leave it at 1"):
        build_problem(config(tiny, model=drawing(function=True), coherent=coherent))
    assert build_problem(config(tiny, model=drawing(function=False), coherent=coherent)).draws == ()


def layout_of(problem: Problem, ranks: int) -> RankLayout:
    assigned = assign(len(problem.decomposition), ranks)
    places = [
        RankPlacement(r, "here", "cpu", "cpu", 1, tuple(block), replica) for r, (block, replica) in enumerate(assigned)
    ]
    return RankLayout(len(problem.decomposition), tuple(places))


def refusal(tiny: Path, ranks: int, **sections: Any) -> str:
    """What is said of batches that are too small for that many ranks and two subdomains; nothing if they are not."""
    chosen = config(tiny, decomposition={"grid": [1, 2]}, **sections)
    problem = build_problem(chosen)
    try:
        check_shards(chosen, problem, layout_of(problem, ranks))
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("sections", "enough", "ranks", "sharing"),
    [
        ({"local": {"batch_size": 4}}, 9, 10, 5),  # four replicas of two CNNs and an idle rank; five of each
        ({"coherent": {"batch_size": 4}}, 9, 10, 5),
        ({"coherent": {"batch_size": 4, "parallelism": "data"}}, 5, 6, 6),  # four ranks that work and an idle one
        ({"baseline": {"batch_size": 4, "enabled": True}}, 5, 6, 6),
    ],
    ids=["local", "coherent", "data", "baseline"],
)
def test_batches_with_fewer_rows_than_ranks_are_refused(
    tiny: Path, sections: dict[str, Any], enough: int, ranks: int, sharing: int
) -> None:
    (section,) = sections
    assert [refusal(tiny, few, **sections) for few in (1, 2, enough)] == ["", "", ""]
    assert refusal(tiny, ranks, **sections) == (
        f"{section}.batch_size is 4, but {sharing} ranks share each batch; use {sharing} or more"
    )


@pytest.mark.parametrize("section", ["local", "coherent"])
def test_shared_batches_that_are_fast_need_two_rows_on_each_rank(tiny: Path, section: str) -> None:
    sections: dict[str, Any] = {section: {"batch_size": 5}, "shared_batches": "fast"}
    assert refusal(tiny, 4, **sections) == ""
    assert refusal(tiny, 6, **sections) == f"{section}.batch_size is 5, but 3 ranks share each batch; use 6 or more"
    assert refusal(tiny, 6, **{**sections, "shared_batches": "exact"}) == ""


def test_fewer_samples_than_a_batch_are_the_batch(tiny: Path) -> None:
    large: dict[str, Any] = {section: {"batch_size": 1000} for section in ("local", "coherent")}
    assert refusal(tiny, 600, **large) == ""  # 300 samples
    assert refusal(tiny, 602, **large).startswith("local.batch_size is 300, but 301 ranks share each batch")


def test_a_baseline_that_is_not_trained_is_no_obstacle(tiny: Path) -> None:
    assert refusal(tiny, 9, baseline={"batch_size": 2}) == ""


def test_a_coherent_phase_that_is_left_out_is_no_obstacle(tiny: Path) -> None:
    assert refusal(tiny, 9, coherent={"batch_size": 2, "starts": []}) == ""


def test_penultimate_features_of_an_own_cnn_without_them_are_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_penultimate.py").write_text(
        "import math, torch\n"
        "class Both(torch.nn.Module):\n"
        "    def __init__(self, pixels, num_classes):\n"
        "        super().__init__()\n"
        "        self.classifier = torch.nn.Linear(pixels, num_classes)\n"
        "    def forward(self, images):\n"
        "        return self.classifier(self.penultimate(images))\n"
        "    def penultimate(self, images):\n"
        "        return images.flatten(1)\n"
        "def both(*, input_shape, num_classes, width):\n"
        "    return Both(math.prod(input_shape), num_classes)\n"
        "def neither(*, input_shape, num_classes, width):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def problem_of(name: str, coherent: dict[str, Any], features: str = "logits") -> Problem:
        model = {"name": f"own_penultimate:{name}", "local_width": 1}
        return build_problem(config(tiny, model=model, aggregation={"features": features}, coherent=coherent))

    problem_of("both", {"features": "penultimate"})
    problem_of("neither", {"features": "logits"})
    problem_of("neither", {"features": "penultimate", "starts": []})
    with pytest.raises(UserError, match=r"coherent\.features is 'penultimate'.*'own_penultimate:neither'"):
        problem_of("neither", {"features": "penultimate"})
    widths = problem_of("both", {}, "penultimate").feature_widths("penultimate")
    assert widths == [math.prod(shape) for shape in problem_of("both", {}).subimage_shapes]
    with pytest.raises(UserError, match=r"aggregation\.features is 'penultimate'.*'own_penultimate:neither'"):
        problem_of("neither", {"starts": []}, "penultimate")
