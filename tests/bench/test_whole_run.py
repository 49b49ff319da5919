"""`bench train`: the plain script does the same work as a run, and the benchmark says so as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml

from hpcdd.bench import plain_script, whole_run
from hpcdd.bench.time_account import CATEGORIES
from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader

from ..launchers import Launcher


@pytest.fixture
def content(tiny: Path) -> dict[str, Any]:
    return {
        "data": {"file": str(tiny), "validation_fraction": 0.1},
        "decomposition": {"grid": [1, 3]},
        "model": {"name": "vgg2", "local_width": 8},
        "local": {"epochs": 4, "batch_size": 30},
        "aggregation": {"epochs": 6, "batch_size": 30, "hidden": [16]},
        "coherent": {"epochs": 3, "batch_size": 30, "dropout_scale": 0.3},
        "run": {"report": False},
    }


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


@pytest.mark.bench
def test_both_sides_learn_the_same_and_nothing_is_left(content: dict[str, Any], mpi: Launcher, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    done = mpi.hpcdd(2, ["bench", "train", "c.yaml", "--rounds", "2"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
    lines = {line[:22].strip(): _numbers(line[22:]) for line in done.stdout.splitlines()}
    rows = {name: lines[name] for name in ("whole", *whole_run.ROWS, "all else")}
    for column in (0, 3):  # the medians of hpcdd and of the plain script
        parts = [numbers[column] for name, numbers in rows.items() if name != "whole"]
        assert 0 < max(parts) < rows["whole"][column] < 60
        assert sum(parts) == pytest.approx(rows["whole"][column], rel=0.3, abs=0.1)
    fractions = dict(re.findall(r"(\w+) (\d+\.\d)%", done.stdout))
    assert tuple(fractions) == CATEGORIES
    assert sum(map(float, fractions.values())) == pytest.approx(100, abs=0.6)
    (over_steps,) = re.findall(r"run / sum of its steps (\d\.\d{3})", done.stdout)
    assert float(over_steps) > 1
    for what in ("DNN", "coherent model"):
        (both,) = re.findall(rf"test accuracy of the {what}: hpcdd (\S+), plain (\S+)$", done.stdout, re.MULTILINE)
        ours, plain = map(float, both)
        assert min(ours, plain) > 0.8  # by guessing 0.33
        assert abs(ours - plain) < 0.15


def test_the_sum_over_ranks_has_the_gradient_of_one_model() -> None:
    summand, others = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    summand.requires_grad_()

    class Ranks:
        def Allreduce(self, values: npt.NDArray[np.float32], result: npt.NDArray[np.float32]) -> None:  # noqa: N802
            result[...] = values + others.numpy()

    total = plain_script._SumOverRanks.apply(summand, Ranks())  # type: ignore[no-untyped-call]
    (total**3).sum().backward()
    assert torch.equal(total, summand + others)
    assert summand.grad is not None
    assert torch.allclose(summand.grad, 3 * (summand + others).detach() ** 2)


def test_it_reads_what_a_run_reads(content: dict[str, Any]) -> None:
    problem = build_problem(Config.model_validate(content))
    ours, plain = problem.read(BoxReader(problem.info.path), [0, 2], "cpu"), plain_script._read(problem, [0, 2])
    assert plain.keys() == {0, 2}
    for s, splits in plain.items():
        assert splits.keys() == {"train", "validation", "test"}
        for split, images in splits.items():
            assert torch.allclose(images, ours[s][split].batch(slice(None))[0])
            assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augmentation": {"translate": 1}}, "the plain script does not support augmentation; leave it out"),
        ({"augmentation": {"flip": [1]}}, "the plain script does not support augmentation; leave it out"),
        ({"augmentation": {"cutout": 2}}, "the plain script does not support augmentation; leave it out"),
        ({"local": {"early_stopping": 2}}, "the plain script does not support local.early_stopping; leave it out"),
        ({"coherent": {"ema": 0.5}}, "the plain script does not support coherent.ema; leave it out"),
        ({"aggregation": {"label_smoothing": 0.5}}, "the plain script does not support aggregation.label_smoothing"),
        ({"model": {"name": "fast2"}, "coherent": {}}, "the plain script does not support whitening; leave it out"),
        ({"coherent": {"starts": []}}, r"coherent.starts is \[\]; the plain script supports only \[transfer\]"),
        ({"coherent": {"features": "penultimate"}}, "the plain script does not support coherent.features penultimate"),
        ({"output": "here"}, "--output has no effect: the run directories are removed"),
        ({"decomposition": {"boxes": [[[0, 0], [12, 12]]]}}, None),
    ],
    ids=str,
)
def test_what_the_script_cannot_do_is_refused(
    change: dict[str, Any], message: str | None, content: dict[str, Any]
) -> None:
    config = Config.model_validate(content | change)
    if message is None:
        whole_run._begin(config, 1)
        with pytest.raises(UserError, match="supports neither replicas nor idle ranks; use at most 1"):
            whole_run._begin(config, 2)
    else:
        with pytest.raises(UserError, match=f"^bench train: {message}"):
            whole_run._begin(config, 1)
