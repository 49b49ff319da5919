"""The local phase and the gather on any number of ranks, against one process that does all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hpcdd import mesh
from hpcdd.comm import Comm
from hpcdd.config import Config
from hpcdd.data.reading import BoxReader
from hpcdd.mesh import Place
from hpcdd.phases import gather
from hpcdd.phases.local import LocalResult, create_local_cnn, train_local_cnns
from hpcdd.phases.status import Hooks
from hpcdd.problem import Problem, pose


def _train(config: Config, problem: Problem, place: Place) -> dict[int, LocalResult]:
    torch.set_num_threads(1)
    samples = problem.read(BoxReader(problem.info.path), place.subdomains, "cpu")
    return train_local_cnns(config, place, samples, problem.info.num_classes, problem.widths.local_width, Hooks())


@pytest.mark.ranks(3, 7)
def test_local_results_are_bit_identical_to_one_rank_and_need_no_message(
    comm: Comm, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every rank makes its own file by the fixture; its content is the same.
    config = Config(
        data={"file": str(tiny), "validation_fraction": 0.2},
        decomposition={"grid": [2, 3], "overlap": 1},
        model={"name": "vgg2", "width": 8},
        local={"epochs": 1, "batch_size": 16},
    )
    problem = pose(config)
    the_mesh = mesh.build(comm, len(problem.decomposition), "cpu")
    place = the_mesh.places[comm.rank]
    assert place.threads == 1
    with comm.phase("local"):
        results = _train(config, problem, place)
    assert comm.traffic["local"].calls == 0

    monkeypatch.setattr(gather, "PIECE_BYTES", 1000)  # many pieces, the last one smaller
    with comm.phase("gather"):
        logits = gather.gather_logits(
            comm, the_mesh, [result.logits for result in results.values()], problem.samples, problem.info.num_classes
        )
    templates = (
        create_local_cnn(config, s, problem.subimage_shape(s), 3, problem.widths.local_width)
        for s in range(len(problem.decomposition))
    )
    networks = {s: result.network for s, result in results.items()}
    states = [dict(state) for state in gather.gather_parameters(comm, the_mesh, networks, templates)]
    if not comm.is_root:
        assert logits is None
        assert not any(states)
        return
    assert logits is not None
    assert comm.traffic["gather"].calls > 3

    alone = _train(config, problem, Place(0, "here", "cpu", "cpu", 1, tuple(range(6))))
    for s, state in enumerate(states):
        expected = alone[s].network.state_dict()
        assert list(state) == list(expected)
        assert all(torch.equal(state[name], expected[name]) for name in expected), f"parameters of subdomain {s}"
    for split, n in problem.samples.items():
        assert logits[split].shape == (n, 6, 3)
        for s in range(6):
            assert torch.equal(logits[split][:, s], alone[s].logits[split]), f"logits of subdomain {s}, {split}"
