"""Figures of a run, each on one pair of axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..artifacts.metrics import Array as Floats
from ..artifacts.metrics import Calibration
from ..artifacts.metrics_log import EpochRecord
from ..core.names import STRATEGIES
from .run_data import RunData
from .run_facts import AccuracyInterval
from .style import INK, LOOKS, OVER, PAPER, legend

Value = Callable[[EpochRecord], float | None]
_SINGLE = 8
"""Local CNNs whose curves are drawn one by one; of more, a band."""
_NUMBERS, _COLOURS = 10, 100
"""Classes up to which a confusion matrix has numbers, and up to which it is drawn."""
_FEW = 5
"""Predictions in a bin of the confidence; bins with fewer are not drawn."""
_CLASSES = 24
"""Bars of classes; of more classes the worst ones are shown."""


def curves(axes: Axes, run: RunData, value: Value, *, seconds: bool) -> None:
    """A value of every training against epochs or seconds; one phase follows the other.

    Args:
        axes: to draw on.
        run: of which.
        value: of a line of metrics.jsonl; lines without one are left out.
        seconds: whether against seconds; of each phase they are those of its own training.
    """
    offset = 0.0
    for phase in run.phases:
        series = [
            [
                (offset + (line.seconds if seconds else line.epoch), y)
                for line in lines
                if (y := value(line)) is not None
            ]
            for _, lines in run.curves(phase)
        ]
        colour = LOOKS[phase][0]
        _bundle(axes, [points for points in series if points], colour, STRATEGIES[phase].heading)
        ends = [line.seconds if seconds else line.epoch for _, lines in run.curves(phase) for line in lines]
        offset += max(ends)
        if phase != run.phases[-1]:
            axes.axvline(offset, color="gray", lw=0.6, ls=":")
    axes.set_xlabel("seconds of training, phase after phase" if seconds else "epochs, phase after phase")
    if not seconds:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)


def _bundle(axes: Axes, series: Sequence[Sequence[tuple[float, float]]], colour: str, label: str) -> None:
    """One curve, or some thin ones, or a band from the lowest to the highest with the mean."""
    marker = {"marker": "o", "ms": 2.5} if max(map(len, series), default=0) < 30 else {}
    if len(series) <= _SINGLE:
        for number, points in enumerate(series):
            x, y = zip(*points, strict=True)
            width = 1.6 if len(series) == 1 else 0.9
            axes.plot(x, y, color=colour, lw=width, label=label if not number else None, **marker)  # type: ignore[arg-type]
        return
    longest = [points for points in series if len(points) == max(map(len, series))]
    positions = np.mean([[x for x, _ in points] for points in longest], axis=0)
    values = np.array([[y for _, y in points] for points in longest])
    axes.fill_between(positions, values.min(0), values.max(0), color=colour, alpha=0.3, lw=0)
    axes.plot(positions, values.mean(0), color=colour, lw=1.6, label=f"{label}: mean and range", **marker)  # type: ignore[arg-type]


def overview(axes: Axes, spent: Sequence[tuple[str, str, float, float]], connected: Sequence[str]) -> None:
    """Accuracy against CPU seconds until a strategy was trained.

    Args:
        axes: to draw on.
        spent: of each strategy its name, heading, CPU seconds of all ranks and accuracy, see :func:`run_facts.spent`.
        connected: names of the strategies that a line connects: each starts from the one before.
    """
    line = [(seconds, rate) for name, _, seconds, rate in spent if name in connected]
    axes.plot(*zip(*line, strict=True), color="gray", lw=0.8, zorder=1)
    axes.margins(0.08)
    for name, heading, seconds, rate in spent:
        colour, marker = LOOKS[name]
        label = f"{heading}: {rate:.3f}"
        axes.plot(
            seconds,
            rate,
            marker,
            color=colour,
            ms=9 if name == "local" else 6,
            mew=2 if name == "local" else 1,
            label=label,
        )
    axes.set(xlabel="CPU seconds of all ranks until trained", ylabel="test accuracy", xlim=(0, None))
    legend(axes)


def strategies(axes: Axes, accuracies: Sequence[AccuracyInterval], local: Sequence[float]) -> None:
    """Accuracy of each strategy with its interval; the local CNNs as a bar from the lowest to the highest.

    Args:
        axes: to draw on.
        accuracies: accuracy of each strategy, the first one at the top.
        local: accuracy of each local CNN.
    """
    axes.use_sticky_edges = False  # else the bar ends at the frame
    axes.barh(0, max(local) - min(local), left=min(local), height=0.3, color=LOOKS["local"][0])
    axes.plot(local, [0] * len(local), "|", color="black", ms=8)
    for y, entry in enumerate(accuracies, start=1):
        colour, marker = LOOKS[entry.name]
        error = [[entry.accuracy - entry.low], [entry.high - entry.accuracy]]
        axes.errorbar(entry.accuracy, y, xerr=error, fmt=marker, color=colour, ms=6, capsize=3)
    axes.set_yticks(range(len(accuracies) + 1), ["local CNNs", *(entry.short for entry in accuracies)])
    axes.set_ylim(len(accuracies) + 0.6, -0.6)
    axes.set_xlabel("accuracy")


NAMED = 30
"""Classes up to which the confusion matrix has their names; beyond, it has their numbers."""


def confusion(axes: Axes, matrix: Floats, names: Sequence[str]) -> None:
    """Fraction of each true class (row) that is predicted as each class (column); few classes with numbers."""
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1, aspect="equal", interpolation="none")
    axes.grid(visible=False)
    number = len(names)
    if number <= _NUMBERS:
        for i, j in np.argwhere(matrix > 0):
            colour = PAPER if fractions[i, j] > 0.5 else INK
            axes.text(j, i, str(matrix[i, j]), ha="center", va="center", fontsize=8, color=colour, gid=OVER)
    if number <= NAMED:
        axes.set_xticks(range(number), names, rotation=90, fontsize=8)
        axes.set_yticks(range(number), names, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")


def is_drawn(num_classes: int) -> bool:
    """Whether a confusion matrix of that many classes can be read."""
    return num_classes <= _COLOURS


def recalls(axes: Axes, recall: Floats, names: Sequence[str], strategy: str) -> None:
    """Accuracy of each class, or of the worst ones, the best at the top."""
    order = [k for k in np.argsort(recall) if not np.isnan(recall[k])][:_CLASSES]
    axes.barh(range(len(order)), recall[order], color=LOOKS[strategy][0], height=0.7)
    axes.set_yticks(range(len(order)), [names[k] for k in order], fontsize=8)
    axes.set(xlim=(0, 1), xlabel="accuracy within the class", ylim=(-0.6, len(order) - 0.4))


def classes_height(num_classes: int) -> float:
    """Inches of a figure with a bar for each class."""
    return 0.9 + 0.2 * max(4, min(num_classes, _CLASSES))


def reliability(axes: Axes, by_name: Sequence[tuple[str, str, Calibration]]) -> None:
    """Accuracy against confidence.

    Args:
        axes: to draw on.
        by_name: name, heading and calibration of each strategy.
    """
    axes.plot([0, 1], [0, 1], "--", color="gray", lw=1, label="perfect calibration")
    for name, heading, calibration in by_name:
        colour, marker = LOOKS[name]
        some = calibration.count >= _FEW
        label = f"{heading} (error {calibration.expected_error:.3f})"
        axes.plot(
            calibration.confidence[some], calibration.accuracy[some], color=colour, marker=marker, ms=5, label=label
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    legend(axes)


def heat(axes: Axes, values: Floats, rows: Sequence[str]) -> None:
    """Mean attribution by class (row) and subdomain (column); NaN for a class that is never predicted."""
    most = float(np.nanmax(np.abs(values))) or 1.0
    shown = axes.imshow(values, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto", interpolation="none")
    axes.grid(visible=False)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=min(16, values.shape[1])))
    axes.set_xlabel("subdomain")
    bar = axes.figure.colorbar(shown, ax=axes, shrink=0.8)
    bar.outline.set_edgecolor("gray")
