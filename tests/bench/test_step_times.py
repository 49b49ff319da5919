"""What `bench step` measures is the work for which `plan` takes its times."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from hpcdd.bench.step_times import make_timed_work
from hpcdd.config.schema import Config
from hpcdd.data.problem import build_problem
from hpcdd.plan.workload import Workload

from ..training.toy import team_of_one


@pytest.mark.parametrize("dnn_start", ["trained", "fresh", "pool"])
@pytest.mark.parametrize("features", ["logits", "penultimate"])
@pytest.mark.parametrize("placement", ["root", "distributed"])
def test_every_step_has_the_operations_of_the_planned_work(
    tiny: Path, dnn_start: str, features: str, placement: str
) -> None:
    content = {
        "data": {"file": str(tiny)},
        "decomposition": {"grid": [1, 2]},
        "model": {"name": "vgg2", "local_width": 8},
        "local": {"batch_size": 40},
        "aggregation": {"batch_size": 30, "hidden": [32], "features": features, "placement": placement},
        "coherent": {"batch_size": 50, "dnn_start": dnn_start, "features": "penultimate"},
        "baseline": {"enabled": True, "batch_size": 60},
    }
    config = Config.model_validate(content)
    problem = build_problem(config)
    workload = Workload(config, problem)
    with contextlib.ExitStack() as stack:
        timed = make_timed_work(team_of_one(2, config), problem, workload, 1, stack)
        for one in timed:
            with FlopCounterMode(display=False) as counted:
                one.step(one.batches[0])
            assert counted.get_total_flops() == workload.simulated(one.work).flops, one.work
    works = [one.work for one in timed]
    assert len(set(works)) == len(works)
    heads = {(workload.head(n, 50, coherent=True)) for n in (1, 2)}
    if placement == "distributed":
        heads |= {workload.head(n, 30, coherent=False) for n in (1, 2)}
    assert heads <= set(works)
