"""`bench step` and `bench collectives` as a user runs them, and what `plan` makes of their file compared with a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from hpcdd.bench.collectives import LADDER
from hpcdd.config import loading
from hpcdd.data.problem import build_problem
from hpcdd.plan import machine_file, messages, overview
from hpcdd.plan.clock import MEASURED, Clock
from hpcdd.plan.collective_model import COLLECTIVES
from hpcdd.plan.cost import PlannedCosts
from hpcdd.plan.machine import Machine
from hpcdd.plan.memory import Memories
from hpcdd.plan.workload import Workload

from ..launchers import find

pytestmark = pytest.mark.bench

RANKS = 2


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    content = {
        "data": {"file": str(tiny)},
        "decomposition": {"grid": [1, 2]},
        "model": {"name": "vgg2", "local_width": 16},
        "local": {"epochs": 4, "batch_size": 50},
        "aggregation": {"epochs": 2, "batch_size": 50, "hidden": [32]},
        "coherent": {"epochs": 4, "batch_size": 50},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def outputs(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What both benchmarks print; under "file" the path of the machine file that they share."""
    folder = tmp_path_factory.mktemp("machine")
    printed = {"file": str(folder / "machine.json")}
    for what, options in {"step": ["--steps", "5"], "collectives": []}.items():
        done = next(iter(find().values())).hpcdd(
            RANKS, ["bench", what, config, "--rounds", "1", *options, "--output", printed["file"]], folder
        )
        assert (done.returncode, done.stderr) == (0, "")
        printed[what] = done.stdout
    return printed


@pytest.fixture(scope="module")
def machine(outputs: dict[str, str]) -> Machine:
    return machine_file.load(Path(outputs["file"]))


def test_every_kind_of_work_is_measured_on_one_and_on_all_ranks(machine: Machine, outputs: dict[str, str]) -> None:
    for busy in (1, 2):
        measured = {(step.kind, step.batch, step.summands) for step in machine.steps if step.busy == busy}
        assert measured == {
            ("cnn", 50, 1), ("cnn", 12, 1), ("evaluation", 50, 1), ("dnn", 50, 1),
            ("head", 50, 1), ("head", 50, 2), ("head", 12, 1),
        }  # fmt: skip
    for step in machine.steps:
        assert 0 < step.seconds[0] <= step.seconds[1] <= step.seconds[2] < 10
        assert (step.threads, step.device, step.precision) == (1, "cpu", "fp32")
    whole, part = (next(s.flops for s in machine.steps if s.kind == "cnn" and s.batch == b) for b in (50, 12))
    assert whole / part == pytest.approx(50 / 12)
    assert outputs["step"].count("vgg2 of width 16 on 1 x 12 x 6 uint8, 3 classes") == 2 * 3 + 1
    assert outputs["step"].count("plain / hpcdd") == 1
    assert len(re.findall(r"\n  2 of them batched .* one after the other .* ratio ", outputs["step"])) == 1


def test_every_collective_is_compared_with_a_bare_one_and_fitted(machine: Machine, outputs: dict[str, str]) -> None:
    for name in COLLECTIVES:
        sizes = {point.size for point in machine.collectives if point.collective == name}
        assert sizes >= set(LADDER[:-1])
        (fit,) = (fit for fit in machine.fits if fit.collective == name)
        assert fit.points >= len(LADDER) - 1
        assert fit.latency + fit.seconds_per_byte > 0
    message = 8 * (50 * 32 + 1)
    (point,) = (p for p in machine.collectives if (p.collective, p.size) == ("allreduce", message))
    assert (point.ranks, point.hosts) == (RANKS, 1)
    assert min(point.seconds[0], point.bare[0]) > 0
    assert f"{message:,}" in outputs["collectives"]
    assert "the sum over the subdomains" in outputs["collectives"]


def test_the_plan_is_of_the_size_of_a_run(machine: Machine, config: Path, tmp_path: Path) -> None:
    """Time only as far as mistaken units go (a batch has 50 samples), since the machine may do other
    work meanwhile; docs/measurements.md has exact ratios."""
    done = next(iter(find().values())).hpcdd(RANKS, ["train", config, "--output", "run"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    settings = loading.from_yaml(config.read_text(), "config.yaml")
    workload = Workload(settings, build_problem(settings))
    layout = overview.layout_of(settings, workload.problem, machine, RANKS, None, 1)
    assert machine.runtime_bytes is not None
    memories = Memories(workload, RANKS, machine.runtime_bytes)
    planned = [memories.of(p.subdomains, "memory", is_root=p.rank == 0).total for p in layout.placements]
    assert planned == pytest.approx(results["memory"], rel=0.3)
    clock = Clock(machine, workload, 1, overview.most_on_a_host(layout))
    phases = {phase.name: phase for phase in PlannedCosts(clock).phases(RANKS)}
    assert set(clock.bases.values()) == {MEASURED}
    sent = messages.coherent_step(settings, workload.problem, RANKS)
    assert messages.bytes_of(sent) == results["communication"]["coherent_transfer"]["bytes_per_step"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for phase in ("local", "coherent_transfer"):
        speed = max(line["samples_per_second"] for line in lines if line["phase"] == phase)
        assert 1 / 20 < (phases[phase].compute + phases[phase].sending) * speed / 50 < 20, phase
