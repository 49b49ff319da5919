"""Messages that no run of the tests counts separately; the others are compared with runs in
``tests/ranks/test_coherent_runs.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.config.schema import Config
from hpcdd.data.problem import build_problem
from hpcdd.decomposition.rank_layout import assign
from hpcdd.plan import messages
from hpcdd.plan.messages import SimulatedLayout


def config(tiny: Path, **more: object) -> Config:
    model = {"name": "vgg2", "width": 8}
    return Config(data={"file": str(tiny)}, decomposition={"grid": [1, 3]}, model=model, **more)


@pytest.mark.parametrize("ranks", range(1, 12))
def test_the_layout_is_that_of_the_assignment(ranks: int) -> None:
    assigned = assign(3, ranks)
    layout = SimulatedLayout.of(3, ranks)
    assert layout.workers == sum(1 for block, _ in assigned if block)
    assert layout.replicas == 1 + max(replica for _, replica in assigned)


@pytest.mark.parametrize("grid", [[1, 2], [3, 3], [6, 6]])
def test_the_message_of_a_coherent_step_has_one_size(tiny: Path, grid: list[int]) -> None:
    settings = Config(data={"file": str(tiny)}, decomposition={"grid": grid}, model={"name": "vgg2", "local_width": 4})
    (sent,) = messages.coherent_step(settings, build_problem(settings), 2)
    assert (sent.collective, sent.size, sent.counted) == ("allreduce", 8 * (128 * 128 + 1), 16 * (128 * 128 + 1))


def test_the_dnn_goes_out_in_columns(tiny: Path) -> None:
    settings = config(tiny, aggregation={"hidden": [16]})
    columns, rest = messages.spread(settings, build_problem(settings), 3)
    assert columns.size == 4 * 16 * 3 * 3
    assert rest.size == 4 * (16 + 16 * 3 + 3)
    distributed = config(tiny, aggregation={"placement": "distributed"})
    assert messages.spread(distributed, build_problem(distributed), 3) == []


@pytest.mark.parametrize(("ranks", "away"), [(1, 0), (2, 2), (3, 2), (6, 2)])
def test_roots_own_cnns_do_not_travel(tiny: Path, ranks: int, away: int) -> None:
    collected = messages.collect(build_problem(config(tiny)), ranks)
    assert sum(message.number for message in collected) == away
