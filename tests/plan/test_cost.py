"""Seconds of the phases against the formulas, on a machine that takes a nanosecond for each operation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from hpcdd.config.schema import Config
from hpcdd.data.problem import build_problem
from hpcdd.plan.clock import Clock
from hpcdd.plan.cost import Phase, PlannedCosts, total
from hpcdd.plan.plan_tables import print_times
from hpcdd.plan.workload import Work, Workload

from .machines import machine


def costs(tiny: Path, coherent: dict[str, Any] | None = None, **more: object) -> PlannedCosts:
    config = Config(
        data={"file": str(tiny), "validation_fraction": 0.1},
        decomposition={"grid": [1, 3]},
        model={"name": "vgg2", "width": 8},
        local={"epochs": 2, "batch_size": 30},
        aggregation={"epochs": 4, "batch_size": 45, "hidden": [16]},
        coherent={"epochs": 3, "batch_size": 15, "starts": ["transfer", "scratch"], **(coherent or {})},
        **more,
    )
    return PlannedCosts(Clock(machine(), Workload(config, build_problem(config)), 1, 4))


def phases(of: PlannedCosts, ranks: int) -> dict[str, Phase]:
    return {phase.name: phase for phase in of.phases(ranks)}


@pytest.mark.parametrize(("ranks", "cnns"), [(1, 3), (2, 2), (3, 1)])
def test_phases_take_what_the_formulas_say(tiny: Path, ranks: int, cnns: int) -> None:
    planned = costs(tiny)
    work = planned.clock.workload

    def nanoseconds(unit: Work) -> int:
        return work.simulated(unit).flops

    evaluated = nanoseconds(work.local_evaluation(0, 30)) / 30 * cnns  # also of the coherent phase, of 15 at a time
    local = 2 * (9 * cnns * nanoseconds(work.local_cnn(0, 30, "fp32")) + 30 * evaluated) + (300 + 90) * evaluated
    assert phases(planned, ranks)["local"].seconds == pytest.approx(1e-9 * local)
    assert phases(planned, ranks)["dnn"].seconds == pytest.approx(1e-9 * 4 * 6 * nanoseconds(work.dnn(45)))
    coherent = phases(planned, ranks)["coherent_scratch"]
    step = 1e-9 * (cnns * nanoseconds(work.local_cnn(0, 15, "fp32")) + nanoseconds(work.head(cnns, 15, coherent=True)))
    assert coherent.compute == pytest.approx(step)
    size = 8 * (15 * 16 + 1)
    message = 0 if ranks == 1 else 1e-5 * (ranks - 1) + 1e-9 * 2 * size * (ranks - 1) / ranks
    assert coherent.sending == pytest.approx(message)
    assert coherent.seconds == pytest.approx(3 * (18 * (step + message) + 1e-9 * 30 * evaluated))


def test_replicas_divide_the_work_of_one_rank(tiny: Path) -> None:
    planned = costs(tiny, shared_batches="fast")
    full, sharded = phases(planned, 3), phases(planned, 6)
    # In proportion to the operations, of which a shard of half a batch has half.
    assert sharded["local"].compute == pytest.approx(full["local"].compute / 2, rel=0.01)
    assert full["local"].sending == 0 < sharded["local"].sending
    assert sharded["coherent_transfer"].sending > full["coherent_transfer"].sending


def test_weak_scaling_loses_by_messages_and_by_the_dnn_on_root(tiny: Path) -> None:
    planned = costs(tiny)
    one, many = ({phase.name: phase for phase in planned.weak(ranks, 1)} for ranks in (1, 4))
    assert many["local"].seconds == one["local"].seconds
    assert many["coherent_transfer"].compute == one["coherent_transfer"].compute
    assert many["coherent_transfer"].sending > 0
    assert many["dnn"].compute > one["dnn"].compute  # the DNN on root sees the outputs of all CNNs
    assert total(planned.weak(100_000, 1)) > total(planned.weak(4, 1))


def test_weak_scaling_is_not_modelled_for_what_does_not_grow_with_the_ranks(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for coherent, baseline in [({}, False), ({"parallelism": "data"}, False), ({"starts": []}, False), ({}, True)]:
        planned = costs(tiny, coherent, baseline={"enabled": baseline})
        grows = not baseline and coherent.get("parallelism") != "data"
        print_times(planned, 2, sys.stdout)
        printed = capsys.readouterr().out
        assert ("weak: seconds" in printed) == planned.grows_with_ranks == grows
        assert ("weak scaling is not modelled" in printed) != grows
