"""The page of a study: tables, figures, and hypotheses compared with results; the table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from ..core import yaml_text
from ..core.files import write_bytes
from ..core.names import STRATEGIES
from ..core.text_table import print_table
from ..studies import study_results
from ..studies.hypotheses import TestResult
from ..studies.study_tables import StudyTable, tabulate
from . import study_figures as draw
from . import study_texts as texts
from .drawing import SIZE, Figure, Figures
from .page import Section

FILES = {"table.csv": texts.table_csv, "table.tex": texts.latex, "runs.csv": texts.runs_csv}
"""Tables for papers, written into ``tables/`` next to the page."""


def read(folder: Path) -> StudyTable:
    """The table of a study directory.

    Raises:
        UserError: the folder is not a study directory, or a file in it is damaged.
    """
    return tabulate(study_results.read(folder))


def section(table: StudyTable, folder: Path, page: Path) -> Section:
    """Draws the figures into ``figures/`` and writes the files of :data:`FILES` into ``tables/``.

    Args:
        table: of the study.
        folder: for both.
        page: folder of the page, at or above it.

    Raises:
        OSError: a file can't be written.
    """
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        write_bytes(tables / name, text(table).encode())
    index = table.outcome.index
    return Section(
        index.title,
        "study.html",
        lambda out: show(table, out),
        table=table,
        cards=_cards(table),
        data=_data(table),
        notes=texts.notes(table),
        head=texts.head(table),
        body=texts.body(table),
        expected_head=_EXPECTED,
        text_columns=_TEXT_COLUMNS,
        expected=[_expected(result) for result in table.test_results],
        contradicted=[
            texts.hypothesis_text(r.hypothesis) for r in table.test_results if r.pooled.verdict == "contradicted"
        ],
        by_row_head=[*texts.head(table)[: len(table.axes)], "expected", "measured", "difference", "p"],
        by_row=_by_row(table),
        costs=_costs(table) if table.outcome.complete else [],
        missing=[[run.entry.id, run.condition, run.error or ""] for run in table.outcome.missing],
        figures=_figures(table, folder),
        captions=_CAPTIONS,
        files=[(tables / name).relative_to(page).as_posix() for name in FILES],
        settings=yaml_text.dump({"config": index.config, "matrix": index.matrix}),
    )


def _cards(table: StudyTable) -> list[tuple[str, str]]:
    """The headline numbers: value and label."""
    outcome, results = table.outcome, table.test_results
    cards = [(f"{len(outcome.complete)} of {len(outcome.runs)}", "runs complete")]
    if results:
        confirmed = sum(result.pooled.verdict == "as expected" for result in results)
        cards.append((f"{confirmed} of {len(results)}", "hypotheses as expected"))
    measured = [
        (cell.mean, STRATEGIES[name].title, row.name)
        for row in table.rows
        for name, cell in row.accuracy.items()
        if name != "local" and cell.mean is not None
    ]
    if measured:
        mean, strategy, row = max(measured)
        cards.append((f"{mean:.3f}", f"best mean test accuracy: {strategy}{f' ({row})' if row else ''}"))
    return cards


def show(table: StudyTable, out: TextIO) -> None:
    """Prints the table and the expectations."""
    title = f"{table.outcome.index.title}: test accuracy"
    print_table(title, texts.head(table), texts.body(table), out, len(table.axes))
    expected = [_expected(result) for result in table.test_results]
    print_table("expected and measured", _EXPECTED, expected, out, _TEXT_COLUMNS)
    for note in texts.notes(table):
        print(f"note: {note}", file=out)
    for run in table.outcome.missing:
        print(f"{run.entry.id}: {run.condition}{f': {run.error}' if run.error else ''}", file=out)
    out.flush()


_CAPTIONS = {
    "strategies": "Test accuracy by row: mean and sample standard deviation over the seeds. Bars that overlap may "
    "still differ, since the tests compare within runs (`expect`).",
    "local": "Test accuracy of the local CNNs: range and mean over all subimages and seeds, and the DNN.",
    "costs": "Test accuracy against CPU seconds, one point per row; means over the seeds. Further left and "
    "up is better.",
    "differences": "Differences within each run (one point per run), and their mean.",
}
_TEXT_COLUMNS = 3
_EXPECTED = ["expected", "measured", "row by row", "difference over all pairs", "p"]
"""Headings of :func:`_expected`; the first columns contain text."""


def _expected(result: TestResult) -> list[str]:
    """A row under :data:`_EXPECTED`."""
    return [
        texts.hypothesis_text(result.hypothesis),
        texts.verdict(result.pooled, "pair"),
        texts.rows_text(result),
        texts.difference(result.pooled),
        texts.p_value(result.pooled),
    ]


def _by_row(table: StudyTable) -> list[list[str]]:
    """A line for each row and hypothesis: labels, hypothesis, verdict, difference, p."""
    return [
        [
            *row.labels.values(),
            texts.hypothesis_text(result.hypothesis),
            texts.verdict(comparison),
            texts.difference(comparison),
            texts.p_value(comparison),
        ]
        for index, row in enumerate(table.rows)
        for result in table.test_results
        for comparison in [result.rows[index]]
    ]


def _costs(table: StudyTable) -> list[list[str]]:
    """A line for each row: labels, then of each column parameters and CPU seconds."""
    lines = []
    for row in table.rows:
        cells = []
        for name in table.columns:
            seconds, count = row.core_seconds[name].mean, row.parameters.get(name)
            cells.append("-" if seconds is None or count is None else f"{count:,} / {seconds:,.1f}")
        lines.append([*row.labels.values(), *cells])
    return lines


def _data(table: StudyTable) -> list[str]:
    """Each data set of the study in a line."""
    descriptions = {}
    for run in table.outcome.complete:
        if run.results is not None:
            data = run.results.dataset
            shape = " x ".join(map(str, data.image_shape))
            descriptions[data.name, data.train] = (
                f"{data.name}: {data.train:,} training and {data.test:,} test images of {shape}, {data.classes} classes"
            )
    return list(descriptions.values())


def _figures(table: StudyTable, folder: Path) -> list[Figure]:
    """The figures in the order of the page; none for a study without results."""
    if not table.outcome.complete:
        return []
    figures = Figures(folder)
    per_row = 0.15 + 0.1 * len(table.columns)
    for name, alternative, function, inches in (
        (
            "strategies",
            "test accuracy of each strategy, by row of the table",
            draw.strategies,
            draw.height(table, per_row),
        ),
        (
            "local",
            "range of the local CNNs' test accuracies, by row, and the DNN's",
            draw.local_range,
            draw.height(table, 0.45),
        ),
        ("costs", "test accuracy against CPU seconds", draw.costs, 3.9),
        ("differences", "paired differences by hypothesis", draw.differences, 1.6 + 0.6 * len(table.test_results)),
    ):
        if name == "differences" and not table.test_results:
            continue
        with figures.draw(name, alternative, (SIZE[0], inches)) as axes:
            function(axes, table)
    return list(figures)
