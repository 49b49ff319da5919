"""Figures of a scaling study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from .scaling_facts import RUN, Scaling, Spread
from .style import LOOKS, legend


class Look(NamedTuple):
    """How a phase is shown."""

    label: str
    colour: str
    marker: str


PHASES = {
    "local": Look("local step", LOOKS["local"][0], "o"),
    "alone": Look("local step, one rank at a time", "#56B4E9", "."),
    "gather": Look("gather", "#555555", "v"),
    "dnn": Look("DNN step", LOOKS["dnn"][0], "^"),
    "coherent": Look("coherent step", LOOKS["coherent_transfer"][0], "s"),
    RUN: Look("whole run", "#000000", "D"),
}
_SCALING = ("local", "alone", "coherent", RUN)
"""What is expected to scale with the ranks; the DNN is trained on root only."""


def speed_up(axes: Axes, scaling: Scaling) -> None:
    """Speed-up over the smallest number of ranks, with the ideal line."""
    _rank_axis(axes, scaling)
    axes.plot(scaling.ranks, [n / scaling.base for n in scaling.ranks], ":", color="black", lw=1, label="ideal")
    for phase in _SCALING:
        _curve(axes, phase, scaling.speed_up(phase) if phase in scaling.efficiency else {})
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    over = "one rank" if scaling.base == 1 else f"{scaling.base} ranks"
    axes.set_ylabel(f"{'speed-up' if scaling.kind == 'strong' else 'scaled speed-up'} over {over}")
    legend(axes)


def efficiency(axes: Axes, scaling: Scaling) -> None:
    """Parallel efficiency: median and quartiles."""
    _rank_axis(axes, scaling)
    axes.axhline(1, ls=":", color="black", lw=1, label="ideal")
    for phase in _SCALING:
        _curve(axes, phase, scaling.efficiency.get(phase, {}))
    axes.set_ylim(0, max(1.1, axes.get_ylim()[1]))
    axes.set_ylabel("parallel efficiency")
    legend(axes)


def time(axes: Axes, scaling: Scaling) -> None:
    """Seconds of the steps of a run, stacked by phase."""
    positions = range(len(scaling.run_seconds))
    bottom = [0.0] * len(positions)
    phases = list(next(iter(scaling.run_seconds.values()), {}))
    for phase in phases:
        heights = [of_run[phase] for of_run in scaling.run_seconds.values()]
        look = PHASES[phase]
        axes.bar(positions, heights, bottom=bottom, color=look.colour, label=look.label.removesuffix(" step"))
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    axes.set_xticks(list(positions), [f"{n:,}" for n in scaling.run_seconds])
    axes.set(xlabel="ranks", ylabel="seconds")
    axes.set_ylim(0, 1.05 * max([*bottom, 1e-9]))
    legend(axes)


def size(axes: Axes, scaling: Scaling) -> None:
    """Bytes that a rank sends and receives per step."""
    _rank_axis(axes, scaling)
    for phase, by_ranks in scaling.bytes.items():
        sent = {n: size for n, size in by_ranks.items() if size}
        if sent:
            look = PHASES[phase]
            axes.plot(list(sent), list(sent.values()), color=look.colour, marker=look.marker, label=look.label)
    if axes.lines:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(low / 2, high * 2)
        legend(axes)
    axes.set_ylabel("bytes per step")


def _curve(axes: Axes, phase: str, by_ranks: Mapping[int, Spread]) -> None:
    if not by_ranks:
        return
    ranks, spreads = list(by_ranks), list(by_ranks.values())
    medians = [spread.median for spread in spreads]
    errors = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
    label, colour, marker = PHASES[phase]
    axes.errorbar(ranks, medians, errors, label=label, color=colour, marker=marker, capsize=3, ms=5)


def _rank_axis(axes: Axes, scaling: Scaling) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(scaling.ranks)
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("ranks")


def _plain(value: float, _: object) -> str:
    return f"{value:,g}"


DRAWN: dict[str, tuple[str, Callable[[Axes, Scaling], None]]] = {
    "speed-up": ("Speed-up. The gap to the ideal line is the cost of messages, waiting and shared memory", speed_up),
    "efficiency": ("Parallel efficiency: median and quartiles of the repeats", efficiency),
    "time": ("Time of a run's steps by phase. The phase that takes longest limits the run", time),
    "bytes": ("Bytes per step on the busiest rank. For a coherent step they don't grow with the CNNs", size),
}
"""By name of the figure, its caption and the function that draws it."""
