"""The local phase on one process; what it does on many ranks is tested in tests/ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpcdd.config.schema import Config
from hpcdd.core.errors import DivergedError
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.decomposition.rank_layout import RankPlacement
from hpcdd.phases.local import LocalResult, create_local_cnn, train_local_cnns
from hpcdd.training.status import Hooks


def run(tiny: Path, subdomains: tuple[int, ...], **local: object) -> dict[int, LocalResult]:
    config = Config(data={"file": str(tiny)}, model={"name": "vgg1", "width": 8}, local={"batch_size": 100, **local})
    problem, placement = build_problem(config), RankPlacement(0, "here", "cpu", "cpu", 1, subdomains)
    samples = problem.read(BoxReader(problem.info.path), subdomains, "cpu")
    return train_local_cnns(config, placement, samples, 3, problem.widths.local_width, Hooks())


def test_a_subdomain_does_not_depend_on_what_else_its_rank_owns(tiny: Path) -> None:
    both, single = run(tiny, (1, 2), epochs=1), run(tiny, (2,), epochs=1)
    assert list(both) == [1, 2]
    assert all(
        torch.equal(a, b)
        for a, b in zip(both[2].network.state_dict().values(), single[2].network.state_dict().values(), strict=True)
    )
    assert torch.equal(both[2].logits["test"], single[2].logits["test"])
    assert not torch.equal(both[1].logits["test"], single[2].logits["test"])


def test_initial_parameters_differ_between_subdomains_and_seeds_only() -> None:
    def first(subdomain: int, seed: int) -> torch.Tensor:
        torch.rand(5)  # whatever was drawn before
        return next(create_local_cnn(Config(seed=seed), subdomain, (1, 8, 8), 3, 4).parameters())

    assert torch.equal(first(0, 0), first(0, 0))
    assert not torch.equal(first(0, 0), first(1, 0))
    assert not torch.equal(first(0, 0), first(0, 1))


def test_a_last_step_that_breaks_the_parameters_is_noticed(tiny: Path) -> None:
    """One step of an absurd length: its own loss is finite, what comes out of it is not."""
    settings = {"epochs": 1, "batch_size": 300, "optimizer": "sgd", "learning_rate": 1e38, "schedule": "constant"}
    with pytest.raises(DivergedError, match="subdomain 0 gives logits that are not finite"):
        run(tiny, (0,), **settings)
