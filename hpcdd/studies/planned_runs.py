"""What a study's runs need, found before any work: ranks, subdomains, and the results that several of them share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..config.schema import Config
from ..core.errors import UserError
from ..core.names import TrainingName
from ..data.problem import Problem, build_problem, problem_of_shards
from ..plan.messages import SimulatedLayout
from ..runs.reuse import identity
from .study_request import StudyRun

_NOT_IN_COST = {"name", "seed", "output", "progress", "checkpoint", "run"}


@dataclass(frozen=True)
class PlannedRun:
    """A run whose configuration and data are checked.

    Attributes:
        run: see there.
        ranks: that it gets.
        subdomains: S.
        results: by phase the identity of a result that other runs need as well, see :mod:`hpcdd.runs.reuse`.
    """

    run: StudyRun
    ranks: int
    subdomains: int
    results: Mapping[TrainingName, str] = field(default_factory=dict)


def plan_runs(runs: Sequence[StudyRun], ranks: int | None, most: int | None) -> list[tuple[PlannedRun, Problem]]:
    """Builds the problem of every run.

    Args:
        runs: of the study.
        ranks: of a run; None: as many as it has subdomains.
        most: ranks of the job; None: as many as are needed.

    Returns:
        What each run needs, and its problem; runs that differ only in their seeds share one.

    Raises:
        UserError: with every mistake, each text once, with a run that has it.
    """
    planned, mistakes = [], dict[str, list[str]]()
    for run, problem in _problems(runs, mistakes):
        total = len(problem.decomposition)
        size = min(ranks or total, most or ranks or total)
        layout = SimulatedLayout.of(total, size)
        if mistake := problem_of_shards(run.config, problem, layout.workers, layout.replicas):
            mistakes.setdefault(mistake, []).append(run.id)
            continue
        record = {
            "config": run.config.model_dump(mode="json"),
            "dataset": problem.info.fingerprint,
            "blocks": problem.blocks,
            "replicas": layout.replicas,
            "workers": layout.workers,
        }
        phases: list[TrainingName] = ["local", "global"] if run.config.baseline.enabled else ["local"]
        planned.append((PlannedRun(run, size, total, {phase: identity(phase, record) for phase in phases}), problem))
    if mistakes:
        lines = [
            f"run {ids[0]}{f' and {len(ids) - 1} more' if len(ids) > 1 else ''}: {text}"
            for text, ids in mistakes.items()
        ]
        raise UserError("\n".join(lines))
    needed = Counter(result for entry, _ in planned for result in entry.results.values())
    return [
        (replace(entry, results={p: result for p, result in entry.results.items() if needed[result] > 1}), problem)
        for entry, problem in planned
    ]


def cost_key(config: Config) -> str:
    """What is equal for runs that differ in nothing but their seed, and in what does not matter to their cost."""
    return json.dumps(config.model_dump(mode="json", exclude=_NOT_IN_COST))


def _problems(runs: Sequence[StudyRun], mistakes: dict[str, list[str]]) -> Iterator[tuple[StudyRun, Problem]]:
    """Of every run its problem; ``mistakes`` takes the texts of those that can't be built, with their runs."""
    known: dict[str, Problem | str] = {}
    for run in runs:
        key = cost_key(run.config)
        if key not in known:
            try:
                known[key] = build_problem(run.config)
            except UserError as error:
                known[key] = str(error)
        problem = known[key]
        if isinstance(problem, str):
            for text in problem.splitlines():
                mistakes.setdefault(text, []).append(run.id)
        else:
            yield run, problem
