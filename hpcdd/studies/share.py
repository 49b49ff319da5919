"""What a study's runs need, found before any work: ranks, subdomains, and the results that several of them share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..checkpoints.reuse import identity
from ..errors import UserError
from ..mesh import assign
from ..problem import Problem, pose, problem_of_shares
from .order import Run

_ALIKE = {"name", "seed", "output", "progress", "device", "checkpoint", "run"}
"""What makes no difference to whether a run can be posed."""


@dataclass(frozen=True)
class Posed:
    """A run of which it is known that it can begin.

    Attributes:
        run: see there.
        ranks: that it gets.
        subdomains: S.
        results: by phase the identity of a result that other runs need as well, see :mod:`hpcdd.checkpoints.reuse`.
    """

    run: Run
    ranks: int
    subdomains: int
    results: Mapping[str, str] = field(default_factory=dict)


def posed(runs: Sequence[Run], ranks: int | None, most: int | None) -> list[Posed]:
    """Poses every run.

    Args:
        runs: of the study.
        ranks: of a run; None: as many as it has subdomains.
        most: ranks of the job; None: as many as are needed.

    Raises:
        UserError: with every mistake, each text once, with a run that has it.
    """
    found, problems = [], dict[str, list[str]]()
    for run, problem in problems_of(runs, problems):
        total = len(problem.decomposition)
        mine = min(ranks or total, most or ranks or total)
        working = [replica for block, replica in assign(total, mine) if block]
        replicas, workers = 1 + max(working), len(working)
        if wrong := problem_of_shares(run.config, problem, workers, replicas):
            problems.setdefault(wrong, []).append(run.id)
            continue
        record = {
            "config": run.config.model_dump(mode="json"),
            "dataset": problem.info.fingerprint,
            "replicas": replicas,
            "workers": workers,
        }
        phases = ["local", *(["global"] if run.config.baseline.enabled else [])]
        found.append(Posed(run, mine, total, {phase: identity(phase, record) for phase in phases}))
    if problems:
        lines = [
            f"run {ids[0]}{f' and {len(ids) - 1} more' if len(ids) > 1 else ''}: {text}"
            for text, ids in problems.items()
        ]
        raise UserError("\n".join(lines))
    counts = Counter(result for entry in found for result in entry.results.values())
    return [
        replace(entry, results={phase: result for phase, result in entry.results.items() if counts[result] > 1})
        for entry in found
    ]


def problems_of(runs: Sequence[Run], mistakes: dict[str, list[str]]) -> Iterator[tuple[Run, Problem]]:
    """Of every run its problem; runs that differ in their seeds alone have one.

    Args:
        runs: of the study.
        mistakes: takes the texts of those that can't be posed, with the runs that have them.
    """
    known: dict[str, Problem | str] = {}
    for run in runs:
        key = json.dumps(run.config.model_dump(mode="json", exclude=_ALIKE))
        if key not in known:
            try:
                known[key] = pose(run.config)
            except UserError as error:
                known[key] = str(error)
        problem = known[key]
        if isinstance(problem, str):
            for text in problem.splitlines():
                mistakes.setdefault(text, []).append(run.id)
        else:
            yield run, problem
