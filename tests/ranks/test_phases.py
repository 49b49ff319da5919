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
def trained(data: Path) -> Trained:
    """Collective: once for all tests of this file. Every rank has a file of its own with the same content."""
    comm = communicator.world()
    config = Config(
        data={"file": str(data), "validation_fraction": 0.2},
        decomposition={"grid": [2, 3], "overlap": 1},
        model={"name": "vgg2", "width": 8},
        local={"epochs": 1, "batch_size": 16},
    )
    problem = build_problem(config)
    the_mesh = layout.build(comm, len(problem.decomposition), "cpu")
    placement = the_mesh.placements[comm.rank]
    with comm.phase("local"):
        results = _train(config, problem, placement)
    return Trained(config, problem, the_mesh, placement, results, comm.traffic["local"].calls)


@functools.cache
def on_one_rank(data: Path) -> dict[int, LocalResult]:
    local_phase = trained(data)
    return _train(local_phase.config, local_phase.problem, RankPlacement(0, "here", "cpu", "cpu", 1, tuple(range(6))))


def test_the_local_phase_needs_no_message(comm: Comm, tiny: Path) -> None:
    assert trained(tiny).placement.threads == 1
    assert trained(tiny).calls == 0


def test_logits_in_pieces_are_bit_identical_to_those_of_one_rank(
    comm: Comm, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_phase = trained(tiny)
    monkeypatch.setattr(gather, "GATHER_BYTES", 1000)  # many pieces, the last one smaller
    rank_logits = [result.logits for result in local_phase.results.values()]
    with comm.phase("gather"):
        logits = gather.gather_logits(
            comm, local_phase.layout, rank_logits, local_phase.problem.samples, local_phase.problem.info.num_classes
        )
    if not comm.is_root:
        assert logits is None
        return
    assert logits is not None
    assert comm.traffic["gather"].calls > 3
    for split, n in local_phase.problem.samples.items():
        assert logits[split].shape == (n, 6, 3)
        for s, result in on_one_rank(tiny).items():
            assert torch.equal(logits[split][:, s], result.logits[split]), f"logits of subdomain {s}, {split}"


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
