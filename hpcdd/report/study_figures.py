"""Figures of a study, each on one pair of axes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.names import STRATEGIES, StrategyName
from ..studies.study_tables import Row, StudyTable
from .drawing import plain
from .study_texts import hypothesis_text
from .style import LOOKS, legend, plain_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rows_of(table: StudyTable) -> list[Row]:
    """The rows with a result."""
    return [row for row in table.rows if row.complete]


def height(table: StudyTable, per_row: float) -> float:
    """Height in inches of a figure with a line for each row: ``per_row`` for each, or that of the longest name."""
    names = max((_name(row).count("\n") + 1 for row in rows_of(table)), default=1)
    return 1.6 + max(per_row, 0.17 * names) * max(2, len(rows_of(table)))


def strategies(axes: Axes, table: StudyTable) -> None:
    """Accuracy of each strategy by row: mean over the seeds, bars of one sample standard deviation."""
    rows = rows_of(table)
    columns = [name for name in table.columns if name != "local"]
    for column, name in enumerate(columns):
        offset = 0.7 * ((column + 0.5) / len(columns) - 0.5)
        cells = [(y + offset, row.accuracy[name]) for y, row in enumerate(rows)]
        there = [(y, cell.mean, cell.std or 0.0) for y, cell in cells if cell.mean is not None]
        _errorbar(axes, name, [m for _, m, _ in there], [y for y, _, _ in there], xerr=[d for _, _, d in there])
    for y in range(1, len(rows)):
        axes.axhline(y - 0.5, color="gray", lw=0.5, alpha=0.5)
    _row_axis(axes, rows)
    axes.set_xlabel("test accuracy")
    legend(axes)


def local_range(axes: Axes, table: StudyTable) -> None:
    """Range of the test accuracies of the local CNNs and their mean, by row, compared with the DNN's."""
    rows = rows_of(table)
    axes.use_sticky_edges = False  # else a bar ends at the frame
    for y, row in enumerate(rows):
        if row.local_range is not None:
            low, high = row.local_range
            axes.barh(y, high - low, left=low, height=0.35, color=LOOKS["local"][0], label="" if y else "local CNNs")
    for name in ("local", "dnn"):
        cells = [(y, row.accuracy[name].mean) for y, row in enumerate(rows)]
        there = [(y, mean) for y, mean in cells if mean is not None]
        colour, marker = ("black", "|") if name == "local" else LOOKS["dnn"]
        label = "their mean" if name == "local" else "DNN"
        axes.plot([m for _, m in there], [y for y, _ in there], marker, color=colour, ms=7, label=label)
    _row_axis(axes, rows)
    axes.set_xlabel("test accuracy")
    legend(axes)


def costs(axes: Axes, table: StudyTable) -> None:
    """Accuracy against the CPU seconds that lead to it, a point for each row; means over the seeds."""
    for name in table.columns:
        if name == "local":
            continue
        points = [
            (cost, accuracy, row.accuracy[name].std or 0.0)
            for row in rows_of(table)
            if (cost := row.core_seconds[name].mean) is not None and (accuracy := row.accuracy[name].mean) is not None
        ]
        _errorbar(axes, name, [c for c, _, _ in points], [a for _, a, _ in points], yerr=[d for _, _, d in points])
    axes.set_xscale("log")
    plain_numbers(axes.xaxis)
    axes.set(xlabel="CPU seconds, all ranks", ylabel="test accuracy")
    legend(axes)


def differences(axes: Axes, table: StudyTable) -> None:
    """The paired differences of all runs, and their mean, by hypothesis."""
    for y, result in enumerate(table.test_results):
        pairs = result.pooled.differences
        # One below the other in the order of the runs: equal differences would hide each other.
        heights = [y + 0.5 * ((i + 0.5) / len(pairs) - 0.5) for i in range(len(pairs))]
        axes.plot(pairs, heights, "o", color="#888888", ms=4, alpha=0.7, label="" if y else "a run")
        if result.pooled.mean is not None:
            mean = [result.pooled.mean] * 2
            axes.plot(mean, [y - 0.35, y + 0.35], color="#000000", lw=2, label="" if y else "mean")
    axes.axvline(0, color="gray", lw=1)
    axes.set_yticks(
        range(len(table.test_results)), [_broken(hypothesis_text(r.hypothesis)) for r in table.test_results]
    )
    axes.set_ylim(len(table.test_results) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("difference of test accuracies in one run")
    legend(axes)


def _errorbar(
    axes: Axes, name: StrategyName, x: Sequence[float], y: Sequence[float], **errors: Sequence[float]
) -> None:
    if x:
        colour, marker = LOOKS[name]
        label = STRATEGIES[name].heading
        axes.errorbar(x, y, fmt=marker, color=colour, ms=5, capsize=2, elinewidth=1, label=label, **errors)  # type: ignore[arg-type]


def _row_axis(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _name(row: Row) -> str:
    """The name of a row, wrapped to leave room for the values; a number stays next to its axis."""
    return textwrap.fill(re.sub(r" (?=[\d.])(?!\d+x)", "\N{NO-BREAK SPACE}", plain(row.name)) or "all", 15)


def _broken(text: str) -> str:
    """A hypothesis in up to three lines."""
    for word in (" above ", " at least "):
        text = text.replace(word, f"\n{word.strip()} ")
    return text
