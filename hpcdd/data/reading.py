"""Reading subimages: a rank reads the boxes that it owns, and nothing else of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..decomposition import Box
from ..errors import UserError
from .coarse import Index, average, coarse_shape, pieces
from .format import open_dataset

Array = npt.NDArray[Any]
_PIECE_BYTES = 1 << 22
"""Bytes of pixels that are read at once; more where a chunk of the file has more."""

Rows = npt.NDArray[np.int64]
Padding = Sequence[tuple[int, int]]


@dataclass
class BoxReader:
    """Reads boxes of one dataset file.

    Attributes:
        path: the file.
        bytes_read: bytes of pixels that this reader has asked HDF5 for so far.
    """

    path: Path
    bytes_read: int = 0

    def read(self, split: str, box: Box, block: Sequence[int] | None = None) -> Array:
        """The subimages of all samples of one split; see :meth:`read_rows`."""
        return self.read_rows(split, box, [None], block)[0]

    def read_rows(
        self,
        split: str,
        box: Box,
        parts: Sequence[Rows | None],
        block: Sequence[int] | None = None,
        padding: Padding | None = None,
    ) -> list[Array]:
        """The subimages of some samples of one split, in several parts that are filled in one pass through the file.

        Besides the result, memory holds a piece of the file of bounded size.

        Args:
            split: ``train``, ``validation`` or ``test``.
            box: which pixels of each image.
            parts: for each part ascending indices of samples; None for all.
            block: pixels along each axis that are averaged to one; default: 1. Averages of whole images are read
                from the file if it holds them for this block, else made piece by piece from the images.
            padding: per axis the pixels before and after the box by which the subimages grow, as their reflection.

        Returns:
            For each part an array (n, C, *box.shape) of the stored dtype, grown by the padding; with a block
            (n, C, *coarse), the same whether it was read or averaged.

        Raises:
            UserError: the file is damaged there, or a pixel is NaN or infinite.
        """
        with open_dataset(self.path) as file:
            group, name = file[split], "images"
            coarse = block is not None and max(block) > 1
            stored = coarse and box.shape == group["images"].shape[2:] and _stored_block(group) == tuple(block or ())
            if stored:
                name = "coarse"
            images = group[name]
            whole = Box((0,) * len(box.start), images.shape[2:]) if stored else box
            to_average = block if coarse and not stored else None
            shape = coarse_shape(whole.shape, to_average) if to_average else whole.shape
            around = padding or [(0, 0)] * len(shape)
            grown = tuple(n + a + b for n, (a, b) in zip(shape, around, strict=True))
            inner = tuple(slice(a, a + n) for n, (a, _) in zip(shape, around, strict=True))
            filled = [
                np.empty((len(images) if rows is None else len(rows), images.shape[1], *grown), images.dtype)
                for rows in parts
            ]
            bad: list[int] = []
            for fine, averages in self._pieces(images, whole, to_average):
                pixels = self._pixels(images, fine)
                if to_average:
                    pixels = average(pixels, to_average)
                first, channels, window = averages[0].start, averages[1], averages[2:]
                if pixels.dtype.kind == "f":  # an average is NaN or infinite where one of its pixels is
                    finite = np.isfinite(pixels).all(axis=tuple(range(1, pixels.ndim)))
                    bad += (first + np.flatnonzero(~finite)).tolist()
                for rows, part in zip(parts, filled, strict=True):
                    target = part[(slice(None), slice(None), *inner)]
                    if rows is None:
                        target[(averages[0], channels, *window)] = pixels
                    else:
                        here = slice(*np.searchsorted(rows, (first, first + len(pixels))))
                        target[(here, channels, *window)] = pixels[rows[here] - first]
        if bad:
            raise UserError(
                f"data.file: {self.path}: {split}/{name}[{min(bad)}] has a pixel that is NaN or infinite "
                f"({len(set(bad))} such images in box {list(box.start)} to {list(box.stop)}); mend or drop them"
            )
        for part in filled:
            _reflect(part, around)
        return filled

    def _pieces(self, images: h5py.Dataset, box: Box, block: Sequence[int] | None) -> Iterator[tuple[Index, Index]]:
        """Cuts a box of all images into pieces of bounded size: the index in the file, and in the (averaged) result."""
        shape = (*images.shape[:2], *box.shape)
        chunk = images.chunks or (1,) * images.ndim
        first = (0, 0, *box.start)
        ones = (1,) * len(box.shape)
        for fine, coarse in pieces(shape, block or ones, chunk, _PIECE_BYTES // images.dtype.itemsize):
            yield tuple(slice(f + s.start, f + s.stop) for f, s in zip(first, fine, strict=True)), coarse

    def _pixels(self, images: h5py.Dataset, index: Index) -> Array:
        pixels: Array = images[index]
        self.bytes_read += pixels.nbytes
        return pixels


def _reflect(images: Array, padding: Padding) -> None:
    """Fills the padding around images (n, C, *spatial) with their reflection, in place."""
    for axis, (before, after) in enumerate(padding, start=2):
        lines = np.moveaxis(images, axis, 0)
        last = len(lines) - after - 1
        for k in range(1, before + 1):
            lines[before - k] = lines[before + k]
        for k in range(1, after + 1):
            lines[last + k] = lines[last - k]


def _stored_block(group: h5py.Group) -> tuple[int, ...] | None:
    """The block of a split's coarse images; None without any. :func:`hpcdd.data.format.inspect` has checked them."""
    return tuple(group["coarse"].attrs["block"].tolist()) if "coarse" in group else None
