"""Reading subimages: a rank reads the boxes that it owns, and nothing else of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..decomposition import Box
from ..errors import UserError
from .coarse import average, coarse_shape, pieces
from .format import open_dataset

Array = npt.NDArray[Any]
_PIECE_BYTES = 1 << 22
"""Bytes of pixels that are read at once where they are averaged; more where a chunk of the file has more."""


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
        """The subimages of one split.

        Args:
            split: ``train``, ``validation`` or ``test``.
            box: which pixels of each image.
            block: pixels along each axis that are averaged to one; default: 1. Averages of whole images are read
                from the file if it holds them for this block, else made piece by piece from the images.

        Returns:
            Array (n, C, *box.shape) of the stored dtype; with a block (n, C, *coarse), the same in both ways.

        Raises:
            UserError: the file is damaged there, or a pixel is NaN or infinite.
        """
        with open_dataset(self.path) as file:
            group, name = file[split], "images"
            if block is None or max(block) == 1:
                subimages = self._pixels(group["images"], np.s_[:, :, *box.slices])
            elif box.shape == group["images"].shape[2:] and _stored_block(group) == tuple(block):
                name = "coarse"
                subimages = self._pixels(group["coarse"], np.s_[:])
            else:
                subimages = self._averages(group["images"], box, block)
        if subimages.dtype.kind == "f":  # an average is NaN or infinite where one of its pixels is
            bad = np.flatnonzero(~np.isfinite(subimages).all(axis=tuple(range(1, subimages.ndim))))
            if bad.size:
                raise UserError(
                    f"data.file: {self.path}: {split}/{name}[{bad[0]}] has a pixel that is NaN or infinite "
                    f"({bad.size} such images in box {list(box.start)} to {list(box.stop)}); mend or drop them"
                )
        return subimages

    def _pixels(self, images: h5py.Dataset, index: Any) -> Array:
        pixels: Array = images[index]
        self.bytes_read += pixels.nbytes
        return pixels

    def _averages(self, images: h5py.Dataset, box: Box, block: Sequence[int]) -> Array:
        """Averages of a box; of its pixels never more than a piece is in memory."""
        shape = (*images.shape[:2], *box.shape)
        averages: Array = np.empty((*shape[:2], *coarse_shape(box.shape, block)), images.dtype)
        chunk = images.chunks or (1,) * images.ndim
        first = (0, 0, *box.start)
        for fine, coarse in pieces(shape, block, chunk, _PIECE_BYTES // images.dtype.itemsize):
            index = tuple(slice(f + s.start, f + s.stop) for f, s in zip(first, fine, strict=True))
            averages[coarse] = average(self._pixels(images, index), block)
        return averages


def _stored_block(group: h5py.Group) -> tuple[int, ...] | None:
    """The block of a split's coarse images; None without any. :func:`hpcdd.data.format.inspect` has checked them."""
    return tuple(group["coarse"].attrs["block"].tolist()) if "coarse" in group else None
