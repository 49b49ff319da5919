"""Images side by side on one pair of axes, with boxes: outlined, tinted by a number, written on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ..data.coarse import average
from ..data.slices import Array, Slice, colours, shades, slices
from ..decomposition.boxes import Decomposition
from .drawing import SIZE, Figures
from .style import INK, OVER, PAPER

_LINE = 0.17
"""Inches of a line of text."""
_TINTS = "PuOr_r"
"""From purple over white to orange, which people with any colour vision distinguish; without its dark ends."""
_TINT, _STRONGEST = 0.6, 0.36


@dataclass
class Tile:
    """One image of a mosaic.

    Attributes:
        image: (C, *spatial).
        title: one or two lines above it.
        values: of each subdomain, the coarse one last where there is one: tints from -1 to 1; None outlines the boxes.
        box_labels: of each subdomain, a few letters written on its box.
        light: of each subdomain whether its label stands dark on light instead of light on dark.
    """

    image: Array
    title: str
    values: Sequence[float] | None = None
    box_labels: Sequence[str] = field(default_factory=tuple)
    light: Sequence[bool] = field(default_factory=tuple)


def across(decomposition: Decomposition, most: int | None = None) -> int:
    """Tiles in a row: of volumes, whose three slices stand side by side, one.

    Args:
        decomposition: of the images.
        most: without a coarse subdomain, which takes the place of one; default: the largest number on which text fits.
    """
    if len(decomposition.image) == 3:
        return 1
    return (most or (2 if len(decomposition.boxes) > 4 else 3)) - (decomposition.coarse is not None)


def draw(
    figures: Figures,
    name: str,
    alternative: str,
    tiles: Sequence[Tile],
    decomposition: Decomposition,
    most: int | None = None,
) -> None:
    """Draws a figure of tiles in rows.

    Args:
        figures: where it is added.
        name, alternative: see :meth:`Figures.draw`.
        tiles: the tiles, at least one.
        decomposition: whose boxes are outlined, or whose cores are tinted.
        most: see :func:`across`.

    Raises:
        OSError: it can't be written.
    """
    columns = across(decomposition, most)
    pictures = _pictures_of(decomposition)
    picture_width = SIZE[0] / (columns * pictures)  # inches of a picture, with its margin
    tall, head, rows = _tall(decomposition), _head(tiles) / picture_width, -(-len(tiles) // columns)
    with figures.draw(name, alternative, (SIZE[0], rows * (tall + head) * picture_width)) as axes:
        for number, tile in enumerate(tiles):
            left, top = (number % columns) * pictures, number // columns * (tall + head) + head
            axes.text(left + 0.02, top - 0.04, tile.title, va="bottom", ha="left", fontsize=8)
            for offset, (shown, numbered) in enumerate(_pictures(tile, decomposition)):
                _picture(axes, shown, numbered, tile, decomposition, (left + offset, top), tall)
        axes.set(xlim=(0, columns * pictures), ylim=(rows * (tall + head), 0), aspect="equal")
        axes.grid(visible=False)
        axes.set_axis_off()


def _head(tiles: Sequence[Tile]) -> float:
    """Inches above each image, for its title."""
    return _LINE * (0.7 + max(1 + tile.title.count("\n") for tile in tiles))


def _pictures_of(decomposition: Decomposition) -> int:
    """Pictures of a tile side by side: of a volume three, and one more for the coarse subdomain."""
    return (3 if len(decomposition.image) == 3 else 1) + (decomposition.coarse is not None)


def _tall(decomposition: Decomposition) -> float:
    """Height of the tallest picture over the width of a place."""
    n = decomposition.image
    shapes = [n] if len(n) == 2 else [(n[1], n[2]), (n[0], n[2]), (n[0], n[1])]
    return max(min(1.5, height / width) for height, width in shapes)


def _pictures(tile: Tile, decomposition: Decomposition) -> list[tuple[Slice, Sequence[int]]]:
    """The slices of a tile's image with its boxes, and what the coarse CNN sees of it as a box of its own."""
    boxes = decomposition.boxes if tile.values is None else decomposition.cores
    pictures: list[tuple[Slice, Sequence[int]]] = [(shown, range(len(boxes))) for shown in slices(tile.image, boxes)]
    if decomposition.coarse is None:
        return pictures
    averaged = average(shades(tile.image)[None], decomposition.coarse)[0]
    middle = averaged if averaged.ndim == 3 else averaged[:, averaged.shape[1] // 2]
    height, width = middle.shape[1:]
    return [*pictures, (Slice(middle, [(0, (0, 0), (height, width))]), range(len(boxes), len(boxes) + 1))]


def _picture(
    axes: Axes,
    shown: Slice,
    numbered: Sequence[int],
    tile: Tile,
    decomposition: Decomposition,
    corner: tuple[float, float],
    tall: float,
) -> None:
    """One picture in the place at ``corner`` (left, top), one unit wide and ``tall`` units high, with a margin."""
    height, width = shown.pixels.shape[1:]
    scale = min(0.94 / width, 0.94 * tall / height)
    left, top = corner[0] + 0.02, corner[1]
    extent = (left, left + width * scale, top + height * scale, top)
    axes.imshow(colours(shown.pixels), extent=extent, interpolation="none", aspect="equal", zorder=1)
    tints = colormaps[_TINTS]
    for number, (first, start), (last, stop) in shown.boxes:
        subdomain = numbered[number]
        x, y, w, h = left + start * scale, top + first * scale, (stop - start) * scale, (last - first) * scale
        if tile.values is None:
            style = _outline(number, overlapped=any(decomposition.overlap))
            axes.add_patch(Rectangle((x, y), w, h, fill=False, zorder=2, **style))
        else:
            value = float(np.clip(tile.values[subdomain], -1, 1))
            axes.add_patch(
                Rectangle(
                    (x, y), w, h, facecolor=tints(0.5 + _STRONGEST * value), alpha=_TINT, lw=0.4, ec=INK, zorder=2
                )
            )
        if tile.box_labels:
            ink, ground = (INK, PAPER) if tile.light and tile.light[subdomain] else (PAPER, INK)
            axes.text(
                x + w / 2,
                y + h / 2,
                tile.box_labels[subdomain],
                ha="center",
                va="center",
                fontsize=8,
                color=ink,
                zorder=3,
                gid=OVER,
                bbox={"boxstyle": "round,pad=0.2", "facecolor": ground, "edgecolor": "none"},
            )


_OUTLINES = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00")


def _outline(number: int, *, overlapped: bool) -> dict[str, Any]:
    """Neighbours differ in colour, and where boxes overlap in the look of their lines."""
    return {
        "ec": _OUTLINES[number % len(_OUTLINES)],
        "lw": 1.4,
        "ls": ["-", (0, (4, 2))][number % 2] if overlapped else "-",
    }
