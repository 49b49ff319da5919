"""``hpcdd study --dry-run``: the runs of a study, and what they are expected to cost; nothing is trained."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from rich.table import Table
from rich.text import Text

from ..config.schema import Config, TrainingSettings
from ..core.names import TrainingName, coherent_phase
from ..core.text_table import print_plain
from ..data.problem import Problem
from ..models.registry import check_consent
from ..phases.coherent import coherent_parameters
from ..plan import fake_networks, machine_file, messages
from ..plan.clock import Clock
from ..plan.cost import Phase, PlannedCosts, total
from ..plan.machine import Machine
from ..plan.memory import runtime_bytes
from ..plan.overview import layout_of, memories_of, most_on_a_host, resolved_for
from ..plan.workload import Workload
from .planned_runs import PlannedRun, cost_key, plan_runs
from .study_request import StudyRequest


@dataclass(frozen=True)
class Cost:
    """What one run is expected to cost.

    Attributes:
        parameters: of all its networks that are trained.
        steps: training steps by phase; in the local phase, the sum over all CNNs.
        bytes: that a rank sends and receives in a step of the coherent phase; None without one.
        memory: of the fullest rank, bytes.
        phases: with their seconds; empty without a machine file.
    """

    parameters: int
    steps: dict[TrainingName, int]
    bytes: int | None
    memory: int
    phases: tuple[Phase, ...]

    def without(self, phases: Sequence[TrainingName]) -> Cost:
        """What is left where the results of some phases are imported."""
        steps = {phase: number for phase, number in self.steps.items() if phase not in phases}
        left = tuple(phase for phase in self.phases if phase.name not in phases)
        return Cost(self.parameters, steps, self.bytes, self.memory, left)


def run(request: StudyRequest, machine: Path | None, out: TextIO = sys.stdout, user_factory: str | None = None) -> None:
    """Prints a table of the chosen runs.

    Args:
        request: the study and the chosen runs.
        machine: file of a machine, for seconds; None without.
        out: where to print.
        user_factory: the user's factory that may be called, see :func:`hpcdd.models.registry.check_consent`.

    Raises:
        UserError: the problem of a run can't be built, or the machine file lacks something.
    """
    measured = None if machine is None else machine_file.load(machine)
    for one in request.chosen:
        check_consent(one.config.model, user_factory)
    entries = plan_runs(request.chosen, request.ranks, None)
    torch.set_num_threads(1)
    ready = runtime_bytes(measured)
    known: dict[tuple[str, int], Cost] = {}
    trained: set[str] = set()
    rows: list[tuple[PlannedRun, Cost, list[TrainingName]]] = []
    for entry, problem in entries:
        key = cost_key(entry.run.config), entry.ranks
        if key not in known:
            known[key] = cost_of(entry.run.config, problem, entry.ranks, measured, ready)
        reused = [phase for phase, result in entry.results.items() if result in trained]
        trained |= set(entry.results.values())
        rows.append((entry, known[key].without(reused), reused))
    _print(request, rows, out, seconds=measured is not None)


def cost_of(config: Config, problem: Problem, ranks: int, machine: Machine | None, ready: int) -> Cost:
    """What one run costs on that many ranks.

    Args:
        config, problem: of the run.
        ranks: that it gets.
        machine: where it would run, for seconds.
        ready: bytes of a rank that is ready to train.

    Raises:
        UserError: the machine file lacks something.
    """
    config = resolved_for(config, machine)
    layout, workload = layout_of(config, problem, machine, ranks, None, None), Workload(config, problem)
    placement = layout.placements[0]
    phases: tuple[Phase, ...] = ()
    if machine is not None:
        clock = Clock(machine, workload, placement.threads, most_on_a_host(layout), placement.device_id)
        phases = tuple(PlannedCosts(clock).phases(ranks))
    starts = config.coherent.starts
    sent = messages.bytes_of(messages.coherent_step(config, problem, ranks)) if starts else None
    memory = max(memory.total for memory, _ in memories_of(workload, layout, machine, ready))
    return Cost(_parameters(config, problem), _steps(config, problem), sent, memory, phases)


def _parameters(config: Config, problem: Problem) -> int:
    dnn = sum(p.numel() for p in fake_networks.dnn(config, problem).parameters())
    trained = sum(problem.widths.local_parameters) + dnn
    trained += len(config.coherent.starts) * coherent_parameters(problem, config)
    return trained + (problem.widths.global_parameters if config.baseline.enabled else 0)


def _steps(config: Config, problem: Problem) -> dict[TrainingName, int]:
    def of(settings: TrainingSettings) -> int:
        return settings.epochs * settings.steps_per_epoch(problem.samples["train"])

    steps: dict[TrainingName, int] = {"local": len(problem.decomposition) * of(config.local)}
    steps["dnn"] = of(config.aggregation)
    steps |= {coherent_phase(start): of(config.coherent) for start in config.coherent.starts}
    return steps | ({"global": of(config.baseline)} if config.baseline.enabled else {})


def _print(
    request: StudyRequest, rows: Sequence[tuple[PlannedRun, Cost, list[TrainingName]]], out: TextIO, *, seconds: bool
) -> None:
    title = f"{request.description.title or request.name}: {len(rows)} run{'s' * (len(rows) > 1)}, {request.output}"
    table = Table("run", title=Text(title), title_justify="left")
    for column in ("ranks", "CNNs", "parameters", "steps", "bytes/step", "MiB", *(["seconds"] if seconds else [])):
        table.add_column(column, justify="right")
    table.add_column("imported")
    for entry, cost, reused in rows:
        table.add_row(
            entry.run.id,
            str(entry.ranks),
            str(entry.subdomains),
            f"{cost.parameters:,}",
            f"{sum(cost.steps.values()):,}",
            "" if cost.bytes is None else f"{cost.bytes:,}",
            f"{cost.memory / 2**20:,.0f}",
            *([f"{total(cost.phases):,.0f}"] if seconds else []),
            ", ".join(reused),
        )
    print_plain(table, 180, out)
    steps = sum(sum(cost.steps.values()) for _, cost, _ in rows)
    most, memory = max(entry.ranks for entry, _, _ in rows), max(cost.memory for _, cost, _ in rows)
    print(
        f"{steps:,} training steps in total, counting imported results once; on {most} rank{'s' * (most > 1)} at most, "
        f"of {memory / 2**20:,.0f} MiB",
        file=out,
    )
    if seconds:
        work = sum(entry.ranks * total(cost.phases) for entry, cost, _ in rows)
        longest = max(total(cost.phases) for _, cost, _ in rows)
        print(f"{work / 3600:,.2f} hours of all ranks together; the longest run takes {longest:,.0f} s", file=out)
    else:
        print("times need a machine file: name one with --machine FILE (see `hpcdd plan --help`)", file=out)
    out.flush()
