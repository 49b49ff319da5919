"""A picture of samples of each class with the boxes drawn on, so that people see what they made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...core.errors import UserError
from ...core.files import atomic_write
from ...decomposition.boxes import Decomposition, by
from ..format import DatasetInfo, open_dataset, reading_dataset
from ..slices import colours, slices

if TYPE_CHECKING:
    from PIL.Image import Image

_SAMPLES = {2: 8, 3: 3}
"""Samples of each class by number of spatial axes; of a volume three slices are shown."""
_MOST_CLASSES = 40
_EDGE = 112
"""Pixels of the longer side of a picture on the sheet, at least; at most twice as many."""
_GAP, _LINE, _TEXT = 6, 16, 150
_PAPER, _INK, _WARNING = (255, 255, 255), (30, 30, 30), (190, 0, 0)
_COLOURS = ((255, 90, 60), (60, 160, 255), (90, 210, 80), (250, 190, 40), (200, 110, 255), (60, 220, 210))

Array = npt.NDArray[Any]


def write(path: Path, info: DatasetInfo, decomposition: Decomposition | None, *, synthetic: bool) -> None:
    """Writes the sheet of a dataset file as PNG; nothing stands at ``path`` before it is whole.

    Args:
        path: the picture to make; one that is there is replaced.
        info: of the dataset file; the first training samples of every class are shown, of many classes the first.
        decomposition: whose boxes are drawn on; None: no boxes.
        synthetic: whether the images were computed, which the sheet then says.

    Raises:
        UserError: it can't be written, or the dataset file is damaged.
    """
    axes = len(info.image_shape) - 1
    shown = min(info.num_classes, _MOST_CLASSES)
    rows = [np.flatnonzero(info.labels["train"] == label)[: _SAMPLES[axes]] for label in range(shown)]
    with open_dataset(info.path) as file, reading_dataset(info.path):
        images = [[file["train/images"][row] for row in chosen] for chosen in rows]
    pictures = [[picture for image in of_class for picture in _pictures(image, decomposition)] for of_class in images]
    title = f"{info.name}: {by(info.image_shape[1:])} pixels, {info.num_classes} classes"
    if shown < info.num_classes:
        title += f", the first {shown} of them"
    sheet = _sheet(pictures, [str(name) for name in info.class_names[:shown]], title, synthetic)
    try:
        with atomic_write(path) as temporary:
            sheet.save(temporary, "PNG")
    except OSError as error:
        raise UserError(f"{info.path} was written, but its contact sheet {path} can't be: {error}") from error


def of_one(info: DatasetInfo, decomposition: Decomposition, owners: Sequence[int], title: str) -> Image:
    """A sheet of the first training image only, enlarged.

    Args:
        info: of the dataset file.
        decomposition: whose boxes are drawn on.
        owners: of each box a number; those with the same one have the same colour.
        title: of the sheet.
    """
    with open_dataset(info.path) as file, reading_dataset(info.path):
        image = file["train/images"][0]
    pictures = list(_pictures(image, decomposition, owners, 4 * _EDGE))
    name = info.class_names[int(info.labels["train"][0])]
    return _sheet([pictures], [str(name)], title, info.source.startswith("synthetic"))


def _pictures(
    image: Array,
    decomposition: Decomposition | None,
    owners: Sequence[int] | None = None,
    edge: int = _EDGE,
) -> Iterator[Image]:
    """An image (C, H, W), or the three middle slices of a volume (C, D, H, W), with boxes."""
    boxes = decomposition.boxes if decomposition is not None else ()
    for shown in slices(image, boxes):
        coloured = [(first, last, n if owners is None else owners[n]) for n, first, last in shown.boxes]
        yield _picture(shown.pixels, coloured, edge)


def _picture(shades: Array, boxes: Sequence[tuple[Sequence[int], Sequence[int], int]], edge: int) -> Image:
    """Pixels (C, H, W), enlarged by a whole number or made smaller, under outlines of boxes (first, last, colour)."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(colours(shades))
    longest = max(picture.size)
    factor = float(-(-edge // longest)) if longest < edge else min(1.0, 2 * edge / longest)
    size = tuple(max(1, round(n * factor)) for n in picture.size)
    filtered = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    picture = picture.resize((size[0], size[1]), filtered)
    draw = ImageDraw.Draw(picture)
    for start, stop, colour in boxes:
        (top, left), (bottom, right) = ([round(n * factor) for n in corner] for corner in (start, stop))
        corners = (left, top, max(left, right - 1), max(top, bottom - 1))
        draw.rectangle(corners, outline=_COLOURS[colour % len(_COLOURS)])
    return picture


def _sheet(rows: Sequence[Sequence[Image]], names: Sequence[str], title: str, synthetic: bool) -> Image:
    """All pictures on one sheet, a row for each class."""
    from PIL import Image, ImageDraw

    heights = [max([_LINE, *(picture.height for picture in row)]) + _GAP for row in rows]
    widths = [sum(picture.width + _GAP for picture in row) for row in rows]
    top = 2 * _LINE if synthetic else _LINE
    sheet = Image.new("RGB", (_TEXT + max(400, *widths) + _GAP, top + 2 * _GAP + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), _printable(title, 90), _INK)
    if synthetic:
        draw.text((_GAP, _GAP + _LINE), "SYNTHETIC: computed images, no patient's data", _WARNING)
    y = top + 2 * _GAP
    for name, row, height in zip(names, rows, heights, strict=True):
        draw.text((_GAP, y), _printable(name, 22), _INK)
        x = _TEXT
        for picture in row:
            sheet.paste(picture, (x, y))
            x += picture.width + _GAP
        y += height
    return sheet


def _printable(text: str, most: int) -> str:
    """What the built-in font can show, cut to a length."""
    shown = text.encode("latin-1", "replace").decode("latin-1").replace("\n", " ")
    return shown if len(shown) <= most else shown[: most - 3] + "..."
