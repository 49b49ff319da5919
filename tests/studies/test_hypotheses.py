"""Hypotheses and their tests, against values that were worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from hpcdd.core.errors import UserError
from hpcdd.studies.hypotheses import Hypothesis, Measured, evaluate_hypotheses, holm


def rows(*differences: list[float]) -> list[list[Measured]]:
    """Of each row the runs, in which dnn is above average by the differences."""
    return [[Measured({"average": 0.5, "dnn": 0.5 + d}) for d in row] for row in differences]


def of(text: str, *differences: list[float]):  # type: ignore[no-untyped-def]
    """The test result of one hypothesis."""
    (result,) = evaluate_hypotheses([Hypothesis.parse(text)], rows(*differences))
    return result


def one_sided_of_two_degrees(t: float) -> float:
    """P(T > t) of Student's distribution with two degrees of freedom, which has a closed form."""
    return 0.5 - t / (2 * math.sqrt(2 + t * t))


def test_the_paired_test_is_that_of_the_textbook() -> None:
    (row,) = of("dnn > average", [0.01, 0.02, 0.03]).rows
    assert row.mean == pytest.approx(0.02)
    assert row.std == pytest.approx(0.01)
    t = 0.02 / (0.01 / math.sqrt(3))
    assert row.t == pytest.approx(t)
    assert row.p == pytest.approx(one_sided_of_two_degrees(t))
    assert row.corrected == pytest.approx(row.p)
    assert row.verdict == "as expected"  # p = 0.0371
    (below,) = of("dnn >= average", [0.01, 0.02, 0.03]).rows
    assert below.p == pytest.approx(1 - one_sided_of_two_degrees(t))


@pytest.mark.parametrize(
    ("text", "differences", "verdict"),
    [
        ("dnn > average", [0.02, 0.021, 0.022], "as expected"),
        ("dnn > average", [0.02, -0.01, 0.0], "not significant"),
        ("dnn > average", [0.02, -0.01, -0.01], "not confirmed"),
        ("dnn > average", [-0.02, -0.021, -0.022], "contradicted"),
        ("dnn > average", [0.0, 0.0, 0.0], "not confirmed"),
        ("dnn > average", [0.02], "not significant"),
        ("dnn > average", [0.02, 0.02], "not significant"),
        ("dnn >= average", [0.02, -0.01, -0.01], "as expected"),
        ("dnn >= average", [-0.02, 0.01, 0.0], "not significant"),
        ("dnn >= average", [-0.02, -0.021, -0.022], "contradicted"),
        ("dnn >= average", [-0.02], "not significant"),
        ("dnn > global", [0.02, 0.021], "not measured"),
    ],
)
def test_verdicts(text: str, differences: list[float], verdict: str) -> None:
    result = of(text, differences)
    assert result.rows[0].verdict == verdict
    assert result.pooled.verdict == verdict


def test_there_is_no_test_without_an_estimate_of_the_standard_deviation() -> None:
    single, equal, nothing = of("dnn > average", [0.02], [0.1, 0.1, 0.1], []).rows
    assert [c.p for c in (single, equal, nothing)] == [None, None, None]
    assert (single.std, equal.std) == (None, pytest.approx(0))
    assert (nothing.mean, nothing.n) == (None, 0)


def test_pooled_is_over_all_pairs_and_rows_may_differ() -> None:
    whole = of("dnn > average", [0.01, 0.03], [0.21], [0.11, 0.13]).pooled
    # Squared distances from the means of the rows: 2 times 0.01^2, 0, 2 times 0.01^2; two degrees of freedom.
    assert (whole.n, whole.freedom) == (5, 2)
    assert whole.mean == pytest.approx(0.098)
    assert whole.std == pytest.approx(math.sqrt(4e-4 / 2))
    assert whole.p == pytest.approx(one_sided_of_two_degrees(0.098 / (whole.std / math.sqrt(5))))
    assert whole.verdict == "as expected"
    assert of("dnn > average", [0.01], [0.02], [0.03]).pooled.p is None  # no row has two seeds


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
def test_in_one_row_it_is_scipys(differences: list[float]) -> None:
    result = of("dnn >= average", differences)
    row = result.rows[0]
    assume(row.p is not None and row.std is not None and row.std > 1e-6)
    expected = stats.ttest_rel([0.5 + d for d in differences], [0.5] * len(differences), alternative="less")
    assert row.p == pytest.approx(expected.pvalue, abs=1e-6)
    assert result.pooled.p == row.p


def test_what_runs_have_in_common_counts_once_when_pooled() -> None:
    """Two runs of one seed with the same local CNNs, which differ in what the DNN sees."""
    twice = [
        [Measured({"average": 0.6, "majority": 0.5 + s, "dnn": 0.7 + f + s}, origin=s) for s in (0.01, 0.02)]
        for f in (0, 0.1)
    ]
    rules, dnn = evaluate_hypotheses([Hypothesis.parse("average > majority"), Hypothesis.parse("dnn > average")], twice)
    assert (rules.pooled.n, dnn.pooled.n) == (2, 4)
    assert [c.n for c in rules.rows] == [2, 2]


def test_a_test_that_rows_have_in_common_counts_once_in_holms_family() -> None:
    """Two rows whose runs have the same local CNNs, and differ in what the DNN sees."""
    runs = [
        [Measured({"average": 0.6 + s, "majority": 0.5, "dnn": 0.7 + f * s}, origin=s) for s in (0.01, 0.02, 0.04)]
        for f in (2, 3)
    ]
    rules, dnn = evaluate_hypotheses([Hypothesis.parse("average > majority"), Hypothesis.parse("dnn > average")], runs)
    distinct = [rules.rows[0].p, dnn.rows[0].p, dnn.rows[1].p]
    assert rules.rows[1].p == distinct[0]
    expected = holm([p for p in distinct if p is not None])
    assert [rules.rows[0].corrected, *(c.corrected for c in dnn.rows)] == expected
    assert rules.rows[1].corrected == expected[0]


def test_rows_of_other_local_cnns_have_tests_of_their_own() -> None:
    """Of equal accuracies, though."""
    (result,) = evaluate_hypotheses([Hypothesis.parse("dnn > average")], rows([0.01, 0.02, 0.04], [0.01, 0.02, 0.04]))
    assert [c.corrected for c in result.rows] == [2 * c.p for c in result.rows if c.p is not None]


def test_a_hypothesis_and_its_reverse_are_one_test() -> None:
    above, below = evaluate_hypotheses(
        [Hypothesis.parse("dnn > average"), Hypothesis.parse("average >= dnn")], rows([0.01, 0.02, 0.04])
    )
    assert above.rows[0].p == pytest.approx(below.rows[0].p)
    assert above.rows[0].corrected == above.rows[0].p
    assert above.pooled.corrected == above.pooled.p


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holms_method_is_the_closed_test_of_bonferronis(p: list[float]) -> None:
    """A hypothesis is rejected where every intersection with others is: the definition of closed testing."""
    subsets = [chosen for n in range(1, len(p) + 1) for chosen in itertools.combinations(range(len(p)), n)]
    expected = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(len(p))]
    assert holm(p) == pytest.approx(expected)


def test_a_run_that_lacks_a_strategy_makes_no_pair() -> None:
    (result,) = evaluate_hypotheses(
        [Hypothesis.parse("dnn > average")], [[Measured({"dnn": 0.6}), Measured({"dnn": 0.7, "average": 0.5})]]
    )
    assert result.rows[0].differences == (0.2,)


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; none below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_families_of_corrections() -> None:
    """Rows are corrected over rows and hypotheses, pooled tests over hypotheses."""
    hypotheses = [Hypothesis.parse("dnn > average"), Hypothesis.parse("dnn >= average")]
    first, second = evaluate_hypotheses(hypotheses, rows([0.01, 0.02, 0.03], [0.01, 0.02, 0.04]))
    p = [c.p for c in (*first.rows, *second.rows)]
    assert [c.corrected for c in (*first.rows, *second.rows)] == holm([x for x in p if x is not None])
    assert [first.pooled.corrected, second.pooled.corrected] == holm([first.pooled.p, second.pooled.p])
    assert min(c.corrected for c in first.rows if c.corrected) == pytest.approx(4 * min(x for x in p if x is not None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dnn", "is not a hypothesis"),
        ("dnn < average", "is not a hypothesis"),
        ("dnn > average > majority", "is not a hypothesis"),
        ("dnm > average", "dnm is not a strategy"),
        ("dnn > dnn", "with itself"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Hypothesis.parse(text)


def test_a_hypothesis_is_read_as_it_is_written() -> None:
    assert str(Hypothesis.parse(" coherent_transfer>=dnn ")) == "coherent_transfer >= dnn"
