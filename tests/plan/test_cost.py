"""Seconds of the phases against the formulas, on a machine that takes a nanosecond for each operation."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.config.schema import Config
from hpcdd.data.problem import build_problem
from hpcdd.plan.clock import Clock
from hpcdd.plan.cost import Phase, PlannedCosts, efficiency, total
from hpcdd.plan.workload import Work, Workload

from .machines import machine


def costs(tiny: Path, **more: object) -> PlannedCosts:
    config = Config(
        data={"file": str(tiny), "validation_fraction": 0.1},
        decomposition={"grid": [1, 3]},
        model={"name": "vgg2", "width": 8},
        local={"epochs": 2, "batch_size": 30},
        aggregation={"epochs": 4, "batch_size": 45, "hidden": [16]},
        coherent={"epochs": 3, "batch_size": 15, "starts": ["transfer", "scratch"]},
        **more,
    )
    return PlannedCosts(Clock(machine(), Workload(config, build_problem(config)), 1, 4))


def phases(of: PlannedCosts, ranks: int) -> dict[str, Phase]:
    return {phase.name: phase for phase in of.phases(ranks)}


@pytest.mark.parametrize(("ranks", "cnns"), [(1, 3), (2, 2), (3, 1)])
def test_phases_take_what_the_formulas_say(tiny: Path, ranks: int, cnns: int) -> None:
    found = costs(tiny)
    work = found.clock.workload

    def nanoseconds(piece: Work) -> int:
        return work.simulated(piece).flops

    evaluated = nanoseconds(work.local_evaluation(0, 30)) / 30 * cnns  # also of the coherent phase, of 15 at a time
    local = 2 * (9 * cnns * nanoseconds(work.local_cnn(0, 30, "fp32")) + 30 * evaluated) + (300 + 90) * evaluated
    assert phases(found, ranks)["local"].seconds == pytest.approx(1e-9 * local)
    assert phases(found, ranks)["dnn"].seconds == pytest.approx(1e-9 * 4 * 6 * nanoseconds(work.dnn(45)))
    coherent = phases(found, ranks)["coherent_scratch"]
    step = 1e-9 * (cnns * nanoseconds(work.local_cnn(0, 15, "fp32")) + nanoseconds(work.head(cnns, 15)))
    assert coherent.compute == pytest.approx(step)
    size = 8 * (15 * 16 + 1)
    message = 0 if ranks == 1 else 1e-5 * (ranks - 1) + 1e-9 * 2 * size * (ranks - 1) / ranks
    assert coherent.sending == pytest.approx(message)
    assert coherent.seconds == pytest.approx(3 * (18 * (step + message) + 1e-9 * 30 * evaluated))


def test_replicas_share_what_one_rank_did(tiny: Path) -> None:
    found = costs(tiny, shared_batches="fast")
    alone, shared = phases(found, 3), phases(found, 6)
    # In proportion to the operations, of which a share of a batch has as many less.
    assert shared["local"].compute == pytest.approx(alone["local"].compute / 2, rel=0.01)
    assert alone["local"].sending == 0 < shared["local"].sending
    assert shared["coherent_transfer"].sending > alone["coherent_transfer"].sending


def test_weak_scaling_loses_by_messages_and_by_root_alone(tiny: Path) -> None:
    found = costs(tiny)
    one, many = ({phase.name: phase for phase in found.weak(ranks, 1)} for ranks in (1, 4))
    assert many["local"].seconds == one["local"].seconds
    assert many["coherent_transfer"].compute == one["coherent_transfer"].compute
    assert many["coherent_transfer"].sending > 0
    assert many["dnn"].compute > one["dnn"].compute  # the DNN on root sees the decisions of all
    assert total(found.weak(100_000, 1)) > total(found.weak(4, 1))


def test_efficiency_is_one_where_nothing_is_lost() -> None:
    assert efficiency(8.0, 4, 2.0) == 1
    assert efficiency(8.0, 4, 4.0) == 0.5
