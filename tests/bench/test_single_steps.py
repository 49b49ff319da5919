"""What is measured is what a training does."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from hpcdd.bench.single_steps import as_trained
from hpcdd.config.schema import Config
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader


@pytest.mark.parametrize("flip", [[], [1]], ids=["plain", "augmented"])
def test_batches_are_augmented_as_in_an_epoch(tiny: Path, flip: list[int]) -> None:
    tree = {"data": {"file": str(tiny)}, "augmentation": {"flip": flip}, "model": {"name": "vgg2", "width": 8}}
    problem = build_problem(Config.model_validate(tree))
    samples = problem.read(BoxReader(tiny), [0], "cpu")[0]["train"]
    rows = torch.arange(100)
    with contextlib.ExitStack() as stack:
        seen = as_trained(samples, stack).batch(rows)[0]
    plain = samples.batch(rows)[0]
    changed = (seen != plain).flatten(1).any(1).float().mean()
    assert 0.2 < changed < 0.8 if flip else changed == 0
