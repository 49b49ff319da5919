"""What a study expects of its strategies, beside what was measured; pure.

A statement ``A > B`` or ``A >= B`` is on test accuracies. Both strategies of a pair come from one run: same data, boxes
and seed. Of the paired differences A - B, mean, sample standard deviation and the one-sided paired t test are given:

* for each row of the table over its seeds. The p values of all rows and statements of the study are corrected together
  by Holm's method;
* over all rows and seeds at once, pooled: a test with more power, which takes the rows as further samples of one
  difference. Runs that share their local CNNs have some pairs twice, such as average and majority vote; these count
  once. The p values of all statements are corrected together.

``A > B`` is tested against the hypothesis of no difference or one below zero, ``A >= B`` against that of no
difference or one above zero. Verdicts, at a level of 5%:

==============  =====================================  ===================================
verdict         ``A > B``                              ``A >= B``
==============  =====================================  ===================================
as expected     mean above 0, p at most 5%             mean 0 or above
not told apart  mean above 0, p above 5%, or no test   mean below 0, p above 5%, or no test
otherwise       mean 0 or below                        mean below 0, p at most 5%
==============  =====================================  ===================================

There is no test of a single pair, nor of differences that are all equal, whose deviation is no estimate.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from ..errors import UserError

LEVEL = 0.05
Strategy = Literal["local", "average", "majority", "log_pool", "dnn", "coherent_transfer", "coherent_scratch", "global"]
"""What a statement may name: the strategies of results.json, and the mean of the local CNNs."""
NAMES: tuple[Strategy, ...] = get_args(Strategy)
Verdict = Literal["as expected", "not told apart", "otherwise", "not measured"]


@dataclass(frozen=True)
class Statement:
    """``left > right`` or ``left >= right``, of test accuracies."""

    left: Strategy
    relation: Literal[">", ">="]
    right: Strategy

    @classmethod
    def parse(cls, text: str) -> Statement:
        """Reads a statement.

        >>> Statement.parse("dnn > average")
        Statement(left='dnn', relation='>', right='average')

        Raises:
            UserError: it is none, or names what is no strategy.
        """
        found = re.fullmatch(r"\s*(\w+)\s*(>=?)\s*(\w+)\s*", text)
        if found is None:
            raise UserError(f"{text!r} is no statement; write `dnn > average` or `coherent_transfer >= dnn`")
        left, relation, right = found.groups()
        if unknown := [name for name in (left, right) if name not in NAMES]:
            raise UserError(f"{text!r}: {unknown[0]} is no strategy; the strategies are {', '.join(NAMES)}")
        if left == right:
            raise UserError(f"{text!r} compares {left} with itself")
        return cls(cast(Strategy, left), ">" if relation == ">" else ">=", cast(Strategy, right))

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"


@dataclass(frozen=True)
class Measured:
    """What one run has to say.

    Attributes:
        accuracy: of each strategy that it has, on the test split.
        origin: equal in runs that have their local CNNs in common; None of a run that has none in common.
    """

    accuracy: Mapping[Strategy, float]
    origin: Hashable = None


@dataclass(frozen=True)
class Comparison:
    """A statement beside what was measured, in one row or over all of them.

    Attributes:
        statement: what is expected.
        differences: left - right, of each pair.
        t: the statistic of the paired t test, None where there is no test.
        p: one-sided, against the statement's hypothesis; uncorrected.
        corrected: by Holm's method.
    """

    statement: Statement
    differences: tuple[float, ...]
    t: float | None = None
    p: float | None = None
    corrected: float | None = None

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @property
    def mean(self) -> float | None:
        """Of the differences; None without any."""
        return statistics.fmean(self.differences) if self.differences else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the differences; None of less than two."""
        return statistics.stdev(self.differences) if self.n > 1 else None

    @property
    def verdict(self) -> Verdict:
        """See the module."""
        if self.mean is None:
            return "not measured"
        significant = self.corrected is not None and self.corrected <= LEVEL
        if self.statement.relation == ">":
            return "otherwise" if self.mean <= 0 else "as expected" if significant else "not told apart"
        return "as expected" if self.mean >= 0 else "otherwise" if significant else "not told apart"


@dataclass(frozen=True)
class Judgement:
    """A statement in every row, and pooled.

    Attributes:
        rows: in the order of the table's rows.
        pooled: over all rows and seeds.
    """

    statement: Statement
    rows: tuple[Comparison, ...]
    pooled: Comparison


def judge(statements: Sequence[Statement], rows: Sequence[Sequence[Measured]]) -> list[Judgement]:
    """Compares what is expected with what was measured.

    Args:
        statements: of the study.
        rows: by row and run.
    """
    by_row = [[_compare(statement, _pairs(statement, row)) for row in rows] for statement in statements]
    pooled = [_compare(s, _pairs(s, [run for row in rows for run in row], once=True)) for s in statements]
    corrected = iter(_corrected([comparison for of_statement in by_row for comparison in of_statement]))
    return [
        Judgement(statement, tuple(next(corrected) for _ in rows), whole)
        for statement, whole in zip(statements, _corrected(pooled), strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Corrects p values of several tests by Holm's method (1979), in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p)
    least = 0.0
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - place) * p[i]))
        corrected[i] = least
    return corrected


def _pairs(statement: Statement, runs: Sequence[Measured], once: bool = False) -> list[tuple[float, float]]:
    """Both accuracies of each run that has both; ``once``: what runs have in common is left out behind the first."""
    pairs, seen = [], set()
    for run in runs:
        if statement.left in run.accuracy and statement.right in run.accuracy:
            pair = run.accuracy[statement.left], run.accuracy[statement.right]
            if once and run.origin is not None and (run.origin, pair) in seen:
                continue
            seen.add((run.origin, pair))
            pairs.append(pair)
    return pairs


def _compare(statement: Statement, pairs: Sequence[tuple[float, float]]) -> Comparison:
    # Accuracies are ratios of counts: differences that agree to 12 digits are equal.
    differences = tuple(round(a - b, 12) for a, b in pairs)
    comparison = Comparison(statement, differences)
    if len(set(differences)) < 2:
        return comparison
    from scipy import stats

    tested = stats.ttest_1samp(differences, 0.0, alternative="greater" if statement.relation == ">" else "less")
    return replace(comparison, t=float(tested.statistic), p=float(tested.pvalue))


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    corrected = iter(holm([comparison.p for comparison in comparisons if comparison.p is not None]))
    return [replace(c, corrected=next(corrected)) if c.p is not None else c for c in comparisons]
