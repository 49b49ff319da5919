"""A local CNN's step compared with that of a plain loop: both do the same work, interleaved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hpcdd.bench import plain_loop
from hpcdd.config.schema import Config
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.models.layers import Dropout
from hpcdd.training import step_timing
from hpcdd.training.steps import PlainSteps

ROUNDS, STEPS = 3, 2


@pytest.fixture
def config(tiny: Path) -> Config:
    return Config.model_validate(
        {
            "data": {"file": str(tiny)},
            "decomposition": {"grid": [1, 2]},
            "model": {"name": "vgg2", "local_width": 2},
            "local": {"epochs": 1, "batch_size": 20, "early_stopping": None},
        }
    )


def test_turns_are_measured_and_the_parts_add_up(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    ours, theirs = PlainSteps.step, plain_loop.PlainLoop.step
    monkeypatch.setattr(PlainSteps, "step", lambda *a: (order.append("hpcdd"), ours(*a))[1])
    monkeypatch.setattr(plain_loop.PlainLoop, "step", lambda self: (order.append("plain"), theirs(self))[1])
    problem = build_problem(config)
    samples = problem.read(BoxReader(problem.info.path), [1], "cpu")[1]["train"]
    comparison = plain_loop.compare(config, problem, 1, samples, "cpu", ROUNDS, STEPS)
    assert order[: 2 * STEPS * (ROUNDS + 1)] == (["hpcdd"] * STEPS + ["plain"] * STEPS) * (ROUNDS + 1)
    assert len(comparison.ours) == len(comparison.plain) == ROUNDS
    assert min(*comparison.ours, *comparison.plain) > 0
    assert list(comparison.parts) == [*step_timing.PARTS, "bookkeeping"]
    assert min(comparison.parts.values()) > 0
    assert "plain / hpcdd" in str(comparison)


def test_the_plain_network_starts_identically_with_torchs_layers(config: Config) -> None:
    problem = build_problem(config)
    ours, theirs = (plain_loop._network(config, problem, 0, "cpu", torchs=torchs) for torchs in (False, True))
    kinds = [{type(m) for m in network.modules() if isinstance(m, nn.Dropout)} for network in (ours, theirs)]
    assert kinds == [{Dropout}, {nn.Dropout}]
    norms = [{type(m) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} for network in (ours, theirs)]
    assert norms[1] == {nn.BatchNorm2d} != norms[0]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_nobody_measures_the_parts_outside_of_the_block() -> None:
    names: list[str] = []

    class Marker:
        def __init__(self, name: str) -> None:
            names.append(name)

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    with step_timing.marked(Marker), step_timing.part("input"):
        pass
    with step_timing.part("forward"):
        pass
    assert names == ["input"]
