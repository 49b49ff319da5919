"""The page of a study: tables, what is expected compared with what was measured, figures; the table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from ..artifacts.names import STRATEGIES
from ..core import yaml_text
from ..core.files import write_bytes
from ..core.text_table import print_table
from ..studies import study_results
from ..studies.hypotheses import TestResult
from ..studies.study_tables import StudyTable, tabulate
from . import study_figures as draw
from . import study_texts as texts
from .drawing import SIZE, Figure, Figures
from .page import Section

FILES = {"table.csv": texts.table_csv, "table.tex": texts.latex, "runs.csv": texts.runs_csv}
"""What people take into their own papers, written into ``tables/`` next to the page."""


def read(folder: Path) -> StudyTable:
    """The table of a study directory.

    Raises:
        UserError: it is none, or a file in it is damaged.
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
        sentences=_SENTENCES,
        expected=[_expected(judgement) for judgement in table.judgements],
        contradicted=[texts.in_words(j.statement) for j in table.judgements if j.pooled.verdict == "contradicted"],
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
    """The headline numbers: value and words."""
    outcome, judgements = table.outcome, table.judgements
    found = [(f"{len(outcome.complete)} of {len(outcome.runs)}", "runs complete")]
    if judgements:
        confirmed = sum(judgement.pooled.verdict == "as expected" for judgement in judgements)
        found.append((f"{confirmed} of {len(judgements)}", "statements as expected"))
    measured = [
        (cell.mean, STRATEGIES[name].title, row.name)
        for row in table.rows
        for name, cell in row.accuracy.items()
        if name != "local" and cell.mean is not None
    ]
    if measured:
        mean, strategy, row = max(measured)
        found.append((f"{mean:.3f}", f"best mean test accuracy: {strategy}{f' ({row})' if row else ''}"))
    return found


def show(table: StudyTable, out: TextIO) -> None:
    """Prints the table and the expectations."""
    title = f"{table.outcome.index.title}: test accuracy"
    print_table(title, texts.head(table), texts.body(table), out, len(table.axes))
    expected = [_expected(judgement) for judgement in table.judgements]
    print_table("expected and measured", _EXPECTED, expected, out, _SENTENCES)
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
_SENTENCES = 3
_EXPECTED = ["expected", "measured", "row by row", "difference over all pairs", "p"]


def _expected(judgement: TestResult) -> list[str]:
    """A row under :data:`_EXPECTED`."""
    return [
        texts.in_words(judgement.statement),
        texts.verdict(judgement.pooled, "pair"),
        texts.in_rows(judgement),
        texts.difference(judgement.pooled),
        texts.p_value(judgement.pooled),
    ]


def _by_row(table: StudyTable) -> list[list[str]]:
    """A line for each row and statement: labels, statement, verdict, difference, p."""
    return [
        [
            *row.labels.values(),
            texts.in_words(judgement.statement),
            texts.verdict(comparison),
            texts.difference(comparison),
            texts.p_value(comparison),
        ]
        for place, row in enumerate(table.rows)
        for judgement in table.judgements
        for comparison in [judgement.rows[place]]
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
    found = {}
    for run in table.outcome.complete:
        if run.results is not None:
            data = run.results.dataset
            shape = " x ".join(map(str, data.image_shape))
            found[data.name, data.train] = (
                f"{data.name}: {data.train:,} training and {data.test:,} test images of {shape}, {data.classes} classes"
            )
    return list(found.values())


def _figures(table: StudyTable, folder: Path) -> list[Figure]:
    """In the order of the page; none of a study without results."""
    if not table.outcome.complete:
        return []
    figures = Figures(folder)
    crowded = 0.15 + 0.1 * len(table.columns)
    for name, words, function, inches in (
        (
            "strategies",
            "test accuracy of each strategy, by row of the table",
            draw.strategies,
            draw.height(table, crowded),
        ),
        (
            "local",
            "range of the local CNNs' test accuracies, by row, and the DNN's",
            draw.local_range,
            draw.height(table, 0.45),
        ),
        ("costs", "test accuracy against CPU seconds", draw.costs, 3.9),
        ("differences", "paired differences by statement", draw.differences, 1.6 + 0.6 * len(table.judgements)),
    ):
        if name == "differences" and not table.judgements:
            continue
        with figures.draw(name, words, (SIZE[0], inches)) as axes:
            function(axes, table)
    return list(figures)
