"""The table of a study as text, CSV and LaTeX, and its verdicts as text; pure functions."""

from __future__ import annotations

from ..core.names import STRATEGIES, STRATEGY_NAMES
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
    """The rows as text: labels, then mean and standard deviation over the seeds.

    Args:
        table: of the study.
        pm: sign between mean and standard deviation.
    """
    columns = table.columns
    return [[*row.labels.values(), *(cell_text(row.accuracy[name], pm) for name in columns)] for row in table.rows]


def cell_text(cell: Cell, pm: str = "±") -> str:
    """Mean and, with several seeds, sample standard deviation; a dash without results."""
    if cell.mean is None:
        return "-"
    return f"{cell.mean:.4f}" if cell.std is None else f"{cell.mean:.4f} {pm} {cell.std:.4f}"


def hypothesis_text(hypothesis: Hypothesis) -> str:
    """A hypothesis with the headings of its strategies."""
    relation = "above" if hypothesis.relation == ">" else "at least"
    return f"{STRATEGIES[hypothesis.left].heading} {relation} {STRATEGIES[hypothesis.right].heading}"


def verdict(comparison: Comparison, pairs: str = "seed") -> str:
    """The verdict, with the number of samples where it matters.

    Args:
        comparison: of a row, or pooled.
        pairs: name of a sample: ``seed`` or ``pair``.
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


def rows_text(result: TestResult) -> str:
    """Number of rows whose mean is as expected, and number of rows with a significant difference."""
    measured = [comparison for comparison in result.rows if comparison.mean is not None]
    significant = sum(c.corrected is not None and c.corrected <= LEVEL for c in measured)
    if result.hypothesis.relation == ">":
        expected = sum(c.mean is not None and c.mean > 0 for c in measured)
        return f"above in {expected} of {len(measured)}, {significant} significant"
    expected = sum(c.mean is not None and c.mean >= 0 for c in measured)
    return f"at least in {expected} of {len(measured)}, {significant} significantly below"


def difference(comparison: Comparison) -> str:
    """Mean and standard deviation of the paired differences; a dash without any."""
    if comparison.mean is None:
        return "-"
    spread = "" if comparison.std is None else f" ± {comparison.std:.4f}"
    return f"{comparison.mean:+.4f}{spread}"


def p_value(comparison: Comparison) -> str:
    """The corrected p value with the direction of the test; `no test` without one."""
    if comparison.corrected is None:
        return "no test"
    value = "< 0.0001" if comparison.corrected < 1e-4 else f"{comparison.corrected:.4f}"
    return f"{value} ({'above' if comparison.hypothesis.relation == '>' else 'below'})"


def notes(table: StudyTable) -> list[str]:
    """What a reader should know before believing the table."""
    sentences = []
    runs, missing = table.outcome.runs, table.outcome.missing
    if missing:
        failed = sum(run.condition == "failed" for run in missing)
        parts = [f"{failed} failed"] * bool(failed) + [f"{len(missing) - failed} not complete"] * (
            failed < len(missing)
        )
        sentences.append(
            f"{len(missing)} of {len(runs)} runs have no result ({', '.join(parts)}); only the others are counted."
        )
    uneven = [row.name for row in table.rows if len({row.accuracy[c].n for c in table.columns}) > 1]
    if uneven:
        sentences.append(f"Not all strategies were run equally often: {'; '.join(uneven) or 'the only row'}.")
    if len(table.seeds) == 1:
        sentences.append(
            "There is only one seed, so there is no standard deviation and no test; differences may be due to chance."
        )
    data = {run.results.dataset.name: run.results.dataset.test for run in table.outcome.complete if run.results}
    if small := [f"{name}: {n:,}" for name, n in data.items() if n < 1000]:
        sentences.append(
            f"The test split is small ({', '.join(small)} images); all seeds are tested on the same images."
        )
    return sentences


def table_csv(table: StudyTable) -> str:
    """The table: a line for each row, with mean, standard deviation and number of seeds of every column."""
    columns = [f"{name}_{what}" for name in table.columns for what in ("mean", "deviation", "seeds")]
    lines = []
    for row in table.rows:
        cells = [row.accuracy[name] for name in table.columns]
        values = [_plain(value) for cell in cells for value in (cell.mean, cell.std, cell.n)]
        lines.append([*row.labels.values(), *values])
    return csv_text([[*table.axes, *columns], *lines])


def runs_csv(table: StudyTable) -> str:
    """The accuracies of every run, from which everything else is computed."""
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
    """A text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def _plain(value: float | int | None) -> str:
    return "" if value is None else f"{value:.6g}"
