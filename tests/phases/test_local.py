"""The local phase on one process; what it does on many ranks is tested in tests/ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpcdd.config.schema import Config
from hpcdd.core.errors import DivergedError
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.samples import Samples
from hpcdd.decomposition.rank_layout import RankPlacement
from hpcdd.models.fast import Fast
from hpcdd.phases.local import IMAGES_SEEN, LocalResult, create_local_cnn, train_local_cnns, with_data
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


def test_the_whitening_sees_large_images_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, 5,000 volumes of 64 x 64 x 64 voxels would take 5 GB."""
    torch.manual_seed(0)
    brightness = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]) * torch.randn(IMAGES_SEEN + 100, 1, 6, 5).cumsum(-2)
    images = (128 + brightness).clamp(0, 255).to(torch.uint8)  # patches with different eigenvalues
    samples = Samples.of_images(images, torch.zeros(len(images), dtype=torch.int64), [128.0], [74.0], "cpu")
    seen: list[torch.Tensor] = []
    batch = Samples.batch
    monkeypatch.setattr(Samples, "batch", lambda self, rows: (seen.append(rows), batch(self, rows))[1])
    filters = []
    for most in (IMAGES_SEEN, 600):
        seen.clear()
        monkeypatch.setattr("hpcdd.models.fast._ENTRIES", most * 1 * 6 * 5 * 4)
        network = with_data(Fast((1, 6, 5), 2, 2, (1,)), samples, seed=3)
        filters.append(network.get_parameter("whitening.weight"))
        assert max(map(len, seen)) == most
        assert len(torch.cat(seen).unique()) == IMAGES_SEEN
    torch.testing.assert_close(*filters, rtol=1e-3, atol=1e-4)
