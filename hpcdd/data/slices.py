"""What can be shown of an image on paper: itself, or the middle slices of a volume, and which boxes they meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..decomposition.boxes import Box

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Slice:
    """A picture with boxes.

    Attributes:
        pixels: uint8 (C, H, W), the top row first.
        boxes: number of the box, first pixel and one past the last: (top, left), (bottom, right).
    """

    pixels: Array
    boxes: list[tuple[int, tuple[int, int], tuple[int, int]]]


def slices(image: Array, boxes: Sequence[Box]) -> Iterator[Slice]:
    """An image (C, H, W) as it is, or the middle slices of a volume (C, D, H, W) along each axis.

    Args:
        image: of any dtype, see :func:`shades`.
        boxes: that may be met, numbered from 0.
    """
    pixels, spatial = shades(image), image.shape[1:]
    if len(spatial) == 2:
        yield Slice(pixels, [(n, _pair(box.start), _pair(box.stop)) for n, box in enumerate(boxes)])
        return
    for axis in range(3):
        middle = spatial[axis] // 2
        kept = [a for a in range(3) if a != axis]
        # Of depth the last slice is the head, which belongs to the top of a picture.
        cut, flip = pixels.take(middle, axis + 1), axis > 0
        cut = cut[:, ::-1] if flip else cut
        met = [(n, box) for n, box in enumerate(boxes) if box.start[axis] <= middle < box.stop[axis]]
        yield Slice(cut, [(n, *_seen(box, kept, spatial, flip)) for n, box in met])


def shades(image: Array) -> Array:
    """Uint8 of the same shape: bytes as they are, other values from their least to their greatest."""
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    return np.asarray((image.astype(np.float32) - low) * (255 / max(high - low, 1e-30)), np.uint8)


def colours(pixels: Array) -> Array:
    """Uint8 (H, W, 3) from pixels (C, H, W): RGB where there are three channels, else the first one as grey."""
    return np.ascontiguousarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0][..., None].repeat(3, 2))


def _seen(box: Box, axes: Sequence[int], spatial: Sequence[int], flip: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last pixels of a box in a slice along two axes, the first of which may be turned over."""
    start, stop = ([corner[a] for a in axes] for corner in (box.start, box.stop))
    if flip:
        n = spatial[axes[0]]
        start[0], stop[0] = n - stop[0], n - start[0]
    return _pair(start), _pair(stop)


def _pair(corner: Sequence[int]) -> tuple[int, int]:
    top, left = corner
    return top, left
