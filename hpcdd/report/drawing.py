"""Figures of a page; the only place where matplotlib is configured.

Each is small and has one pair of axes, so that a phone shows them one below the other and a wide screen side by side.
As files they are black on white; inside the page their ground is transparent and their foreground ``currentColor``.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from ..core.files import write_bytes
from ..core.texts import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (4.6, 3.2)
"""Inches."""
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, for search and screen readers
    "font.size": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.facecolor": "none",  # its text takes the page's colour, so its background must as well
    "legend.edgecolor": "gray",
}


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: name of its files, without the suffix.
        alternative: description for readers who can't see it.
        svg: the drawing as an element of the page.
        height: its height divided by its width.
    """

    name: str
    alternative: str
    svg: Markup
    height: float


class Figures:
    """Draws figures and keeps them in the order in which they were drawn.

    Args:
        folder: where the page will stand; files go into ``figures/`` there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "figures"
        self._drawn: list[Figure] = []

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._drawn)

    @contextlib.contextmanager
    def draw(self, name: str, alternative: str, size: tuple[float, float] = SIZE) -> Iterator[Axes]:
        """Axes to draw on; when the block ends well, ``NAME.png`` and ``NAME.svg`` are written.

        Args:
            name: name of the files, unique in a page.
            alternative: description for readers who can't see the figure.
            size: width and height in inches.

        Raises:
            OSError: a file can't be written.
        """
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas

        # The salt keeps ids within the drawings of a page distinct.
        with mpl.rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
            # A box is drawn for a missing glyph; the page's tables, which are text, contain the name.
            warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font")
            figure = Canvas(figsize=size, layout="constrained")
            yield figure.subplots()
            self._folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(self._folder / f"{name}.png", dpi=150)
            drawing = io.StringIO()
            figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
            whole = drawing.getvalue().replace("<svg ", '<svg style="background: white" ', 1)
            write_bytes(self._folder / f"{name}.svg", whole.encode())
        self._drawn.append(Figure(name, alternative, _inline(drawing.getvalue(), alternative), size[1] / size[0]))


_COLUMNS = 3
_WIDTH = 0.43
"""Largest number of columns, and largest fraction of the page's width that a figure fills."""


def columns(figures: Iterable[Figure]) -> int:
    """Number of columns that leaves the least space of a wide page empty; figures are placed column by column."""
    heights = [figure.height for figure in figures]

    def filled(number: int) -> float:
        cuts = itertools.combinations(range(1, len(heights)), number - 1)
        tallest = min(max(sum(heights[a:b]) for a, b in itertools.pairwise((0, *ends, len(heights)))) for ends in cuts)
        return sum(heights) / (number * tallest) * min(1, number * _WIDTH)

    return max(range(1, min(_COLUMNS, len(heights)) + 1), key=filled, default=1)


def plain(name: str) -> str:
    """A name as matplotlib should draw it: dollars would begin a formula, and XML has no control characters."""
    return printable(name).replace("$", r"\$")


def _inline(svg: str, alternative: str) -> Markup:
    """An SVG file as an element of a page; what is drawn black takes the colour of the text around it."""
    element = re.sub(
        r"<[^>]*>", lambda tag: re.sub(r"#000000\b|\bblack\b", "currentColor", tag[0]), svg[svg.index("<svg") :]
    )
    element = re.sub(r"<metadata>.*?</metadata>", "", element, count=1, flags=re.DOTALL)
    return Markup(
        element.replace("<svg ", f'<svg role="img" fill="currentColor" aria-label="{escape(alternative)}" ', 1)
    )
