"""What a study expects of its strategies, compared with what was measured; pure.

A hypothesis ``A > B`` or ``A >= B`` is on test accuracies. Both strategies of a pair come from one run: same data,
boxes and seed. Of the paired differences A - B, mean, sample standard deviation and the one-sided paired t test are
given:

* for each row of the table over its seeds. The p values of all rows and hypotheses of the study are corrected together
  by Holm's method, where a test counts once: rows whose runs share their local CNNs have those between their rules in
  common, and ``A > B`` is tested as ``B >= A`` is;
* over all rows and seeds at once, pooled: a test with more power. Rows may differ, so that the standard deviation is
  that within rows: of N differences d in R rows, the mean of all is compared with s / sqrt(N), where s^2 is the sum of
  the squared distances from the means of their rows, over N - R degrees of freedom. (In one row this is the ordinary
  test.) Runs that share their local CNNs have some pairs in common, such as average and majority vote; these count
  once. The p values of all hypotheses are corrected together.

``A > B`` is tested against the hypothesis of no difference or one below zero, ``A >= B`` against that of no
difference or one above zero. Verdicts, at a level of 5%:

===============  ======================================  ===================================
verdict          ``A > B``                              ``A >= B``
===============  ======================================  ===================================
as expected      mean above 0, p at most 5%             mean 0 or above
not significant  mean above 0, p above 5%, or no test   mean below 0, p above 5%, or no test
not confirmed    mean 0 or below, not significantly     never
contradicted     mean below 0, significantly            mean below 0, p at most 5%
===============  ======================================  ===================================

Whether the mean of ``A > B`` is significantly below 0 is tested in the other direction, uncorrected. Single pairs are
not tested, nor differences that are equal within each row: they give no estimate of the standard deviation.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from ..core.errors import UserError
from ..core.names import STRATEGY_NAMES, StrategyName

LEVEL = 0.05
Verdict = Literal["as expected", "not significant", "not confirmed", "contradicted", "not measured"]


@dataclass(frozen=True)
class Hypothesis:
    """``left > right`` or ``left >= right``, of test accuracies."""

    left: StrategyName
    relation: Literal[">", ">="]
    right: StrategyName

    @classmethod
    def parse(cls, text: str) -> Hypothesis:
        """Parses a hypothesis.

        >>> Hypothesis.parse("dnn > average")
        Hypothesis(left='dnn', relation='>', right='average')

        Raises:
            UserError: ``text`` is not a hypothesis, or names an unknown strategy.
        """
        match = re.fullmatch(r"\s*(\w+)\s*(>=?)\s*(\w+)\s*", text)
        if match is None:
            raise UserError(f"{text!r} is not a hypothesis; write `dnn > average` or `coherent_transfer >= dnn`")
        left, relation, right = match.groups()
        if unknown := [name for name in (left, right) if name not in STRATEGY_NAMES]:
            raise UserError(f"{text!r}: {unknown[0]} is not a strategy; use one of {', '.join(STRATEGY_NAMES)}")
        if left == right:
            raise UserError(f"{text!r} compares {left} with itself")
        return cls(cast(StrategyName, left), ">" if relation == ">" else ">=", cast(StrategyName, right))

    def __str__(self) -> str:
        return f"{self.left} {self.relation} {self.right}"


@dataclass(frozen=True)
class Measured:
    """The test accuracies of one run.

    Attributes:
        accuracy: of each strategy that it has, on the test split.
        origin: equal in runs that have their local CNNs in common; None of a run that has none in common.
    """

    accuracy: Mapping[StrategyName, float]
    origin: Hashable = None


@dataclass(frozen=True)
class Comparison:
    """A hypothesis compared with what was measured, in one row or over all of them.

    Attributes:
        hypothesis: what is expected.
        groups: left - right of each pair, by row; of a single row, one group.
        t: the statistic of the paired t test, None where there is no test.
        p: one-sided, of the null hypothesis; uncorrected.
        corrected: by Holm's method.
        same: equal in comparisons whose test is one and the same.
    """

    hypothesis: Hypothesis
    groups: tuple[tuple[float, ...], ...]
    t: float | None = None
    p: float | None = None
    corrected: float | None = None
    same: Hashable = None

    @property
    def differences(self) -> tuple[float, ...]:
        """Those of all rows."""
        return tuple(difference for group in self.groups for difference in group)

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @property
    def freedom(self) -> int:
        """Degrees of freedom: pairs less the rows that they are in."""
        return self.n - sum(bool(group) for group in self.groups)

    @property
    def mean(self) -> float | None:
        """Of the differences; None without any."""
        return statistics.fmean(self.differences) if self.n else None

    @property
    def std(self) -> float | None:
        """Standard deviation of the differences from the means of their rows; None where no row has two."""
        if not self.freedom:
            return None
        squares = [(d - statistics.fmean(group)) ** 2 for group in self.groups for d in group]
        return math.sqrt(math.fsum(squares) / self.freedom)

    @property
    def verdict(self) -> Verdict:
        """See the module."""
        if self.mean is None:
            return "not measured"
        significant = self.corrected is not None and self.corrected <= LEVEL
        if self.hypothesis.relation == ">":
            if self.mean > 0:
                return "as expected" if significant else "not significant"
            return "contradicted" if self.p is not None and 1 - self.p <= LEVEL else "not confirmed"
        return "as expected" if self.mean >= 0 else "contradicted" if significant else "not significant"


@dataclass(frozen=True)
class TestResult:
    """A hypothesis tested in every row, and pooled.

    Attributes:
        rows: in the order of the table's rows.
        pooled: over all rows and seeds.
    """

    hypothesis: Hypothesis
    rows: tuple[Comparison, ...]
    pooled: Comparison


def evaluate_hypotheses(hypotheses: Sequence[Hypothesis], rows: Sequence[Sequence[Measured]]) -> list[TestResult]:
    """Compares what is expected with what was measured.

    Args:
        hypotheses: of the study.
        rows: by row and run.
    """
    by_row = [[_compare(hypothesis, [row]) for row in rows] for hypothesis in hypotheses]
    pooled = [_compare(hypothesis, rows) for hypothesis in hypotheses]
    corrected = iter(_corrected([comparison for of_hypothesis in by_row for comparison in of_hypothesis]))
    return [
        TestResult(hypothesis, tuple(next(corrected) for _ in rows), over_all_rows)
        for hypothesis, over_all_rows in zip(hypotheses, _corrected(pooled), strict=True)
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Corrects p values of several tests by Holm's method (1979), in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p)
    least = 0.0
    for position, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - position) * p[i]))
        corrected[i] = least
    return corrected


def _compare(hypothesis: Hypothesis, rows: Sequence[Sequence[Measured]]) -> Comparison:
    groups: list[list[float]] = []
    seen: dict[Hashable, None] = {}
    order = 1 if hypothesis.relation == ">" else -1  # the strategy first that is tested to be above the other
    for row in rows:
        groups.append([])
        for run in row:
            if hypothesis.left not in run.accuracy or hypothesis.right not in run.accuracy:
                continue
            pair = run.accuracy[hypothesis.left], run.accuracy[hypothesis.right]
            run_and_pair = (id(run) if run.origin is None else run.origin, pair[::order])
            if run_and_pair in seen:
                continue
            seen[run_and_pair] = None
            # Accuracies are ratios of counts: differences that agree to 12 digits are equal.
            groups[-1].append(round(pair[0] - pair[1], 12))
    names = (hypothesis.left, hypothesis.right)[::order]
    comparison = Comparison(hypothesis, tuple(map(tuple, groups)), same=(names, frozenset(seen)))
    if comparison.mean is None or not comparison.std or all(len(set(group)) < 2 for group in groups):
        return comparison
    from scipy import stats

    t = comparison.mean / (comparison.std / math.sqrt(comparison.n))
    p = stats.t.sf(t if hypothesis.relation == ">" else -t, comparison.freedom)
    return replace(comparison, t=t, p=float(p))


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    tests = {comparison.same: comparison.p for comparison in comparisons if comparison.p is not None}
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    return [replace(c, corrected=corrected[c.same]) if c.p is not None else c for c in comparisons]
