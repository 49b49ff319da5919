"""The local phase and the gather on any number of ranks, against one process that does all."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from hpcdd.config.schema import Config
from hpcdd.data.problem import Problem, build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.decomposition import rank_layout as layout
from hpcdd.decomposition.rank_layout import RankLayout, RankPlacement
from hpcdd.mpi import communicator
from hpcdd.mpi.communicator import Comm
from hpcdd.phases import gather
from hpcdd.phases.local import LocalResult, create_local_cnn, train_local_cnns
from hpcdd.training.status import Hooks

pytestmark = pytest.mark.ranks(3, 7)


def _train(config: Config, problem: Problem, placement: RankPlacement) -> dict[int, LocalResult]:
    torch.set_num_threads(1)
    samples = problem.read(BoxReader(problem.info.path), placement.subdomains, "cpu")
    return train_local_cnns(config, placement, samples, problem.info.num_classes, problem.widths.local_width, Hooks())


@dataclass(frozen=True)
class Trained:
    """What one rank has behind the local phase: the problem, its place, and what it has trained."""

    config: Config
    problem: Problem
    layout: RankLayout
    placement: RankPlacement
    results: dict[int, LocalResult]
    calls: int


@functools.cache
def trained(data: Path, features: str = "logits") -> Trained:
    """Collective: once for all tests of this file. Every rank has a file of its own with the same content."""
    comm = communicator.world()
    config = Config(
        data={"file": str(data), "validation_fraction": 0.2},
        decomposition={"grid": [2, 3], "overlap": 1},
        model={"name": "vgg2", "width": 8},
        local={"epochs": 1, "batch_size": 16},
        aggregation={"features": features},
    )
    problem = build_problem(config)
    the_mesh = layout.build(comm, len(problem.decomposition), "cpu")
    placement = the_mesh.placements[comm.rank]
    with comm.phase("local"):
        results = _train(config, problem, placement)
    return Trained(config, problem, the_mesh, placement, results, comm.traffic["local"].calls)


@functools.cache
def on_one_rank(data: Path, features: str = "logits") -> dict[int, LocalResult]:
    local_phase = trained(data, features)
    return _train(local_phase.config, local_phase.problem, RankPlacement(0, "here", "cpu", "cpu", 1, tuple(range(6))))


def test_the_local_phase_needs_no_message(comm: Comm, tiny: Path) -> None:
    assert trained(tiny).placement.threads == 1
    assert trained(tiny).calls == 0


@pytest.mark.parametrize("features", ["logits", "probabilities", "penultimate"])
def test_features_in_pieces_are_bit_identical_to_those_of_one_rank(
    comm: Comm, tiny: Path, monkeypatch: pytest.MonkeyPatch, features: str
) -> None:
    local_phase = trained(tiny, features)
    widths = local_phase.problem.feature_widths(features)
    monkeypatch.setattr(gather, "GATHER_BYTES", 10 * 4 * sum(widths))  # many pieces, the last one smaller
    rank_features = [result.features for result in local_phase.results.values()]
    calls = comm.traffic["gather"].calls if "gather" in comm.traffic else 0
    with comm.phase("gather"):
        gathered = gather.gather_features(comm, local_phase.layout, rank_features, local_phase.problem.samples, widths)
    if not comm.is_root:
        assert gathered is None
        return
    assert gathered is not None
    assert comm.traffic["gather"].calls - calls > 3
    for split, n in local_phase.problem.samples.items():
        assert gathered[split].shape == (n, sum(widths))
        columns = torch.split(gathered[split], widths, dim=1)
        for s, result in on_one_rank(tiny, features).items():
            assert torch.equal(columns[s], result.features[split]), f"features of subdomain {s}, {split}"
            assert result.logits[split].shape == (n, 3)


def test_cnns_of_different_widths_are_gathered(comm: Comm, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a user's factory may be; column (s, f) of sample i is the number 100 i + 10 s + f."""
    local_phase, widths, n = trained(tiny), [3, 1, 4, 1, 5, 2], 7
    monkeypatch.setattr(gather, "GATHER_BYTES", 3 * 4 * sum(widths))

    def of(subdomain: int) -> torch.Tensor:
        return 100.0 * torch.arange(n).view(-1, 1) + 10 * subdomain + torch.arange(widths[subdomain])

    features = [{"train": of(s)} for s in local_phase.placement.subdomains]
    gathered = gather.gather_features(comm, local_phase.layout, features, {"train": n}, widths)
    if comm.is_root:
        assert gathered is not None
        assert torch.equal(gathered["train"], torch.cat([of(s) for s in range(6)], dim=1))


def test_parameters_are_bit_identical_to_those_of_one_rank(comm: Comm, tiny: Path) -> None:
    local_phase = trained(tiny)
    templates = (
        create_local_cnn(
            local_phase.config, s, local_phase.problem.subimage_shape(s), 3, local_phase.problem.widths.local_width
        )
        for s in range(len(local_phase.problem.decomposition))
    )
    networks = {s: result.network for s, result in local_phase.results.items()}
    states = [dict(state) for state in gather.gather_parameters(comm, local_phase.layout, networks, templates)]
    if not comm.is_root:
        assert not any(states)
        return
    for s, state in enumerate(states):
        expected = on_one_rank(tiny)[s].network.state_dict()
        assert list(state) == list(expected)
        assert all(torch.equal(state[name], expected[name]) for name in expected), f"parameters of subdomain {s}"
