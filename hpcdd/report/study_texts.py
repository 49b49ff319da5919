"""The table of a study as text: cells and verdicts in words, CSV, LaTeX; pure."""

from __future__ import annotations

from ..artifacts.names import STRATEGIES, STRATEGY_NAMES
from ..core.texts import csv_text, printable
from ..studies.hypotheses import LEVEL, Comparison, Hypothesis, TestResult
from ..studies.study_tables import Cell, StudyTable, heading

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # it would belong to the end of the line before
    "*": "{*}",
}


def head(table: StudyTable) -> list[str]:
    """Headings of the axes and of the columns."""
    return [*map(heading, table.axes), *(STRATEGIES[name].heading for name in table.columns)]


def body(table: StudyTable, pm: str = "±") -> list[list[str]]:
    """The rows in words: labels, then mean and deviation over the seeds.

    Args:
        table: of the study.
        pm: stands between mean and deviation.
    """
    return [[*row.labels.values(), *(words(row.accuracy[name], pm) for name in table.columns)] for row in table.rows]


def words(cell: Cell, pm: str = "±") -> str:
    """Mean and, of several seeds, sample standard deviation; a dash without any."""
    if cell.mean is None:
        return "-"
    return f"{cell.mean:.4f}" if cell.deviation is None else f"{cell.mean:.4f} {pm} {cell.deviation:.4f}"


def in_words(statement: Hypothesis) -> str:
    """A statement with the headings of its strategies."""
    relation = "above" if statement.relation == ">" else "at least"
    return f"{STRATEGIES[statement.left].heading} {relation} {STRATEGIES[statement.right].heading}"


def verdict(comparison: Comparison, pairs: str = "seed") -> str:
    """The verdict with what a reader has to know of it.

    Args:
        comparison: of a row, or pooled.
        pairs: what is counted.
    """
    n = f"{comparison.n} {pairs}{'' if comparison.n == 1 else 's'}"
    if comparison.verdict == "not measured":
        return "not measured: no run has both strategies"
    if comparison.verdict == "not significant":
        above = comparison.mean is not None and comparison.mean > 0
        return f"{'as expected' if above else 'below on average'}, not significant with {n}"
    if comparison.verdict == "not confirmed":
        return f"not confirmed, not above on average, with {n}"
    return comparison.verdict


def in_rows(judgement: TestResult) -> str:
    """In how many rows the mean is as expected, and how many of them the tests distinguish."""
    measured = [comparison for comparison in judgement.rows if comparison.mean is not None]
    told = sum(c.corrected is not None and c.corrected <= LEVEL for c in measured)
    if judgement.statement.relation == ">":
        right = sum(c.mean is not None and c.mean > 0 for c in measured)
        return f"above in {right} of {len(measured)}, {told} significant"
    right = sum(c.mean is not None and c.mean >= 0 for c in measured)
    return f"at least in {right} of {len(measured)}, {told} significantly below"


def difference(comparison: Comparison) -> str:
    """Mean and deviation of the paired differences; a dash without any."""
    if comparison.mean is None:
        return "-"
    spread = "" if comparison.deviation is None else f" ± {comparison.deviation:.4f}"
    return f"{comparison.mean:+.4f}{spread}"


def p_value(comparison: Comparison) -> str:
    """The corrected p value and what for, or that there is no test."""
    if comparison.corrected is None:
        return "no test"
    value = "< 0.0001" if comparison.corrected < 1e-4 else f"{comparison.corrected:.4f}"
    return f"{value} ({'above' if comparison.statement.relation == '>' else 'below'})"


def notes(table: StudyTable) -> list[str]:
    """What a reader should know before believing the table."""
    found = []
    runs, missing = table.outcome.runs, table.outcome.missing
    if missing:
        failed = sum(run.condition == "failed" for run in missing)
        parts = [f"{failed} failed"] * bool(failed) + [f"{len(missing) - failed} not complete"] * (
            failed < len(missing)
        )
        found.append(
            f"{len(missing)} of {len(runs)} runs have no result ({', '.join(parts)}); only the others are counted."
        )
    uneven = [row.name for row in table.rows if len({row.accuracy[c].n for c in table.columns}) > 1]
    if uneven:
        found.append(f"Not all strategies were run equally often: {'; '.join(uneven) or 'the only row'}.")
    if len(table.seeds) == 1:
        found.append(
            "There is only one seed, so there is no standard deviation and no test; differences may be due to chance."
        )
    data = {run.results.dataset.name: run.results.dataset.test for run in table.outcome.complete if run.results}
    if small := [f"{name}: {n:,}" for name, n in data.items() if n < 1000]:
        found.append(f"The test split is small ({', '.join(small)} images); all seeds are tested on the same images.")
    return found


def table_csv(table: StudyTable) -> str:
    """The table: a line for each row, and mean, deviation and number of seeds of every column."""
    columns = [f"{name}_{what}" for name in table.columns for what in ("mean", "deviation", "seeds")]
    lines = []
    for row in table.rows:
        cells = [row.accuracy[name] for name in table.columns]
        values = [_plain(value) for cell in cells for value in (cell.mean, cell.deviation, cell.n)]
        lines.append([*row.labels.values(), *values])
    return csv_text([[*table.axes, *columns], *lines])


def runs_csv(table: StudyTable) -> str:
    """Every run: what all else is computed from."""
    index = table.outcome.index
    lines = [
        [run.entry.id, run.condition, *(run.entry.labels[axis] for axis in table.axes), str(index.seed(run.entry))]
        + [_plain(run.results.strategy(name) if run.results else None) for name in STRATEGY_NAMES]
        for run in table.outcome.runs
    ]
    return csv_text([["id", "condition", *table.axes, "seed", *STRATEGY_NAMES], *lines])


def latex(table: StudyTable) -> str:
    """The table as a LaTeX tabular, for the package booktabs."""
    axes, columns = len(table.axes), len(table.columns)
    lines = [
        f"% {printable(' '.join(table.outcome.index.title.split()))}",
        "% test accuracy: mean and sample standard deviation over the seeds "
        f"{', '.join(map(str, table.seeds))}; \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{{'l' * axes}{'r' * columns}}}",
        r"\toprule",
        f"{' & '.join(map(escaped, head(table)))} \\\\",
        r"\midrule",
        *(
            f"{' & '.join([*map(escaped, row[:axes]), *(cell.replace('-', '--') for cell in row[axes:])])} \\\\"
            for row in body(table, r"$\pm$")
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """A text with LaTeX's own characters made harmless."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def _plain(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}"
