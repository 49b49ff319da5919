"""Colours, markers and legends of all figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

LOOKS = {
    "local": ("#999999", "|"),
    "average": ("#56B4E9", "o"),
    "majority": ("#0072B2", "v"),
    "log_pool": ("#CC79A7", "^"),
    "dnn": ("#E69F00", "s"),
    "coherent_transfer": ("#009E73", "D"),
    "coherent_scratch": ("#D55E00", "P"),
    "global": ("#8C6D1F", "X"),
}
"""By strategy: colours that people with any colour vision distinguish (Okabe and Ito 2008), and a marker for each."""

INK, PAPER = "#010101", "#fefefe"
"""Black and white that do not change on a dark page, for text over images; true black takes the page's colour."""

OVER = "over"
"""Group id of texts that are drawn over an image and not on the page's background."""


def legend(axes: Axes) -> None:
    """Puts the legend, if there are labels, below the axes, where it hides nothing."""
    figure = axes.get_figure(root=True)
    if figure is not None and axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)


def plain_numbers(axis: Axis) -> None:
    """Writes a logarithmic axis' numbers without formulas, whose letters a browser sets one by one in its own font."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        """Numbers as people write them: 0.6, not 6e-01."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            """Nothing where LogFormatter leaves a tick without a number."""
            return f"{x:g}" if super().__call__(x, pos) else ""

    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(Plain(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
