"""The table of a study: a row for each combination of its axes but the seed, a column for each strategy; pure."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..artifacts.results import Results
from ..core.names import STRATEGY_NAMES, StrategyName
from ..core.texts import printable
from .hypotheses import Hypothesis, Measured, TestResult, evaluate_hypotheses
from .study_results import RunOutcome, StudyOutcome


@dataclass(frozen=True)
class Cell:
    """Values of one row and column, one for each seed that has it."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Over the seeds; None without any."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds; None of less than two."""
        return statistics.stdev(self.values) if self.n > 1 else None


@dataclass(frozen=True)
class Row:
    """One combination of the matrix's axes but the seed.

    Attributes:
        labels: by axis.
        runs: one for each seed, also those without results.
        accuracy: by column, on the test split.
        core_seconds: by column, CPU seconds of all ranks for what leads to the strategy, once it is trained.
        parameters: by column, trainable ones of the first complete run.
        local_range: lowest and highest test accuracy of a subimage's CNN over all seeds; None without any.
    """

    labels: dict[str, str]
    runs: tuple[RunOutcome, ...]
    accuracy: dict[StrategyName, Cell]
    core_seconds: dict[StrategyName, Cell]
    parameters: dict[StrategyName, int]
    local_range: tuple[float, float] | None

    @property
    def name(self) -> str:
        """Its labels in a line, numbers with their axis; of a study without axes, empty."""
        return ", ".join(
            f"{heading(axis)} {label}" if re.fullmatch(r"[\d.e+-]+", label) else label
            for axis, label in self.labels.items()
        )

    @property
    def complete(self) -> int:
        """Number of runs with results."""
        return sum(run.results is not None for run in self.runs)


@dataclass(frozen=True)
class StudyTable:
    """The results of a study.

    Attributes:
        outcome: what it is made of.
        axes: headings of the labels.
        columns: strategies, in the order in which they are shown.
        rows: in the order of the matrix.
        test_results: of the hypotheses that the study expects, in its order.
    """

    outcome: StudyOutcome
    axes: list[str]
    columns: list[StrategyName]
    rows: list[Row]
    test_results: list[TestResult]

    @property
    def seeds(self) -> list[int]:
        """Of all runs, ascending."""
        return sorted({self.outcome.index.seed(run.entry) for run in self.outcome.runs})

    @property
    def tests(self) -> int:
        """Number of different tests within rows, over which their p values are corrected."""
        return len({c.same for result in self.test_results for c in result.rows if c.p is not None})


def tabulate(outcome: StudyOutcome) -> StudyTable:
    """Makes the table of a study, of what is complete of it.

    Raises:
        UserError: what the study expects is not a hypothesis.
    """
    axes = outcome.index.axes
    by_labels: dict[tuple[str, ...], list[RunOutcome]] = {}
    for run in outcome.runs:
        by_labels.setdefault(tuple(run.entry.labels[axis] for axis in axes), []).append(run)
    there = {name for run in outcome.complete if run.results for name in STRATEGY_NAMES if _has(run.results, name)}
    columns = list(outcome.index.table.columns or [name for name in STRATEGY_NAMES if name in there])
    rows = [_row(dict(zip(axes, map(printable, labels), strict=True)), runs) for labels, runs in by_labels.items()]
    measured = [[_measured(outcome, run) for run in row.runs if run.results is not None] for row in rows]
    hypotheses = [Hypothesis.parse(text) for text in outcome.index.expect]
    return StudyTable(outcome, axes, columns, rows, evaluate_hypotheses(hypotheses, measured))


def heading(axis: str) -> str:
    """Of an axis: the last part of a field's name, in words.

    >>> heading("decomposition.grid")
    'grid'
    """
    return axis.rsplit(".", 1)[-1].replace("_", " ")


def _row(labels: dict[str, str], runs: Sequence[RunOutcome]) -> Row:
    complete = [run.results for run in runs if run.results is not None]
    accuracy: dict[StrategyName, Cell] = {}
    cost: dict[StrategyName, Cell] = {}
    parameters: dict[StrategyName, int] = {}
    for name in STRATEGY_NAMES:
        having = [results for results in complete if _has(results, name)]
        accuracy[name] = Cell(tuple(value for each in having if (value := each.strategy(name)) is not None))
        cost[name] = Cell(tuple(each.core_seconds_of(name) for each in having))
        if having:
            parameters[name] = _parameters(having[0], name)
    local = [value for results in complete for value in results.local]
    return Row(labels, tuple(runs), accuracy, cost, parameters, (min(local), max(local)) if local else None)


def _measured(outcome: StudyOutcome, run: RunOutcome) -> Measured:
    assert run.results is not None
    accuracy = {name: value for name in STRATEGY_NAMES if (value := run.results.strategy(name)) is not None}
    # Runs of one seed in which every local CNN has the same accuracy have the same local CNNs.
    local = run.results.local
    return Measured(accuracy, (outcome.index.seed(run.entry), *local) if local else None)


def _has(results: Results, name: str) -> bool:
    return results.strategy(name) is not None


def _parameters(results: Results, name: StrategyName) -> int:
    count = results.parameters
    if name == "dnn":
        return sum(count.local) + count.dnn
    if name.startswith("coherent"):
        return count.coherent or 0
    return count.of_global if name == "global" else sum(count.local)
