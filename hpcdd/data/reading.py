"""Reading subimages: a rank reads the boxes that it owns, and nothing else of the images."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import numpy.typing as npt

from ..core.errors import UserError
from ..decomposition.boxes import Box
from .checksums import CheckedImages, read_checksums
from .coarse import Index, average, coarse_shape, tiles
from .format import open_dataset, reading_dataset

Array = npt.NDArray[Any]
_READ_BYTES = 1 << 22
"""Bytes of pixels that are read at once; more where a chunk of the file has more."""
_CACHE_BYTES = 1 << 20
"""Bytes of chunks that HDF5 keeps where only parts of them are read at a time; at least one chunk."""
_GAP_BYTES = 1 << 16
"""Bytes that are read along with what is wanted, where another call would take longer."""

Rows = npt.NDArray[np.int64]
Padding = Sequence[tuple[int, int]]
Stored: TypeAlias = "h5py.Dataset | CheckedImages"


@dataclass
class BoxReader:
    """Reads boxes of one dataset file; several threads may use it at once.

    Attributes:
        path: the file.
        bytes_read: bytes of pixels that this reader has asked HDF5 for so far.
    """

    path: Path
    bytes_read: int = 0
    _count: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

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

        Only what holds these samples is read. Besides the result, memory holds a tile of bounded size.

        Args:
            split: ``train``, ``validation`` or ``test``.
            box: which pixels of each image.
            parts: for each part ascending indices of samples; None for all.
            block: pixels along each axis that are averaged to one; default: 1. Averages of whole images are read
                from the file if it holds them for this block, else computed from the images.
            padding: per axis the pixels of reflection by which the subimages are enlarged before and after the box.

        Returns:
            For each part an array (n, C, *box.shape) of the stored dtype, enlarged by the padding; with a block
            (n, C, *coarse), the same whether it was read or averaged.

        Raises:
            UserError: the file is damaged there, or a pixel is NaN or infinite.
        """
        with open_dataset(self.path) as file:
            coarse = block is not None and max(block) > 1
            with reading_dataset(self.path):
                group, name = file[split], "images"
                whole = box.shape == group["images"].shape[2:]
                stored = coarse and whole and _stored_block(group) == tuple(block or ())
                if stored:
                    name = "coarse"
                region = Box((0,) * len(box.start), group[name].shape[2:]) if stored else box
                images = _opened(group, name, region)
            to_average = block if coarse and not stored else None
            shape = coarse_shape(region.shape, to_average) if to_average else region.shape
            around = padding or [(0, 0)] * len(shape)
            padded = tuple(n + a + b for n, (a, b) in zip(shape, around, strict=True))
            filled = [
                np.empty((len(images) if rows is None else len(rows), images.shape[1], *padded), images.dtype)
                for rows in parts
            ]
            bad: list[int] = []
            for fine, averages in self._tiles(images, region, to_average, parts):
                window = (averages[1], *[_shifted(s, a) for s, (a, _) in zip(averages[2:], around, strict=True)])
                pixels = self._fill(images, fine, to_average, parts, filled, window)
                if pixels.dtype.kind == "f":  # an average is NaN or infinite where one of its pixels is
                    finite = np.isfinite(pixels).all(axis=tuple(range(1, pixels.ndim)))
                    bad += (fine[0].start + np.flatnonzero(~finite)).tolist()
        if all(rows is not None for rows in parts):  # rows that were read along with them may hold anything
            bad = np.intersect1d(
                np.array(bad, np.int64), np.concatenate([rows for rows in parts if rows is not None])
            ).tolist()
        if bad:
            raise UserError(
                f"data.file: {self.path}: {split}/{name}[{min(bad)}] has a NaN or infinite pixel ({len(set(bad))} such "
                f"images in box {list(box.start)} to {list(box.stop)}); repair or remove them"
            )
        for part in filled:
            _reflect(part, around)
        return filled

    def _tiles(
        self, images: Stored, box: Box, block: Sequence[int] | None, parts: Sequence[Rows | None]
    ) -> Iterator[tuple[Index, Index]]:
        """Cuts a box of the wanted images into tiles of bounded size: the index in the file, and that of its averages.

        Tiles end where chunks end.
        """
        chunk = images.chunks or (1,) * images.ndim
        ones = (1,) * len(box.shape)
        gap = max(1, _GAP_BYTES // (images.shape[1] * box.size * images.dtype.itemsize))
        if isinstance(images, CheckedImages):  # which reads whole chunks
            gap = max(gap, chunk[0])
        for start, stop in _runs(parts, len(images), gap):
            first = (start - start % chunk[0], 0, *box.start)
            shape = (stop - first[0], images.shape[1], *box.shape)
            for fine, coarse in tiles(shape, block or ones, chunk, _READ_BYTES // images.dtype.itemsize):
                _, *inner = (_shifted(s, f) for f, s in zip(first, fine, strict=True))
                rows = slice(max(start, first[0] + fine[0].start), first[0] + fine[0].stop)
                yield (rows, *inner), (rows, *coarse[1:])

    def _fill(
        self,
        images: Stored,
        fine: Index,
        block: Sequence[int] | None,
        parts: Sequence[Rows | None],
        filled: Sequence[Array],
        window: Index,
    ) -> Array:
        """Reads a tile into the parts that want rows of it, without a copy where one part wants all; its pixels."""
        first, after = fine[0].start, fine[0].stop
        targets = [
            (
                slice(first, after) if rows is None else slice(*map(int, np.searchsorted(rows, (first, after)))),
                rows,
                part,
            )
            for rows, part in zip(parts, filled, strict=True)
        ]
        targets = [(here, rows, part) for here, rows, part in targets if here.start < here.stop]
        size = (after - first) * math.prod(s.stop - s.start for s in fine[1:]) * images.dtype.itemsize
        with self._count:
            self.bytes_read += size
        if block is None and len(targets) == 1 and targets[0][0].stop - targets[0][0].start == after - first:
            here, _, part = targets[0]
            with reading_dataset(self.path):
                images.read_direct(part, fine, (here, *window))
            return part[(here, *window)]
        with reading_dataset(self.path):
            pixels: Array = images[fine]
        if block is not None:
            pixels = average(pixels, block)
        for here, rows, part in targets:
            part[(here, *window)] = pixels if rows is None else pixels[rows[here] - first]
        return pixels


def _opened(group: h5py.Group, name: str, box: Box) -> Stored:
    """A dataset, checked where it has checksums; with a cache where HDF5 reads parts of chunks, else without.

    Without a cache HDF5 copies a plain chunk once less; but parts that are not contiguous would be read one by one,
    and each part of a compressed chunk would cost the decompression of all of it.
    """
    images: h5py.Dataset = group[name]
    if images.chunks is None:
        return images
    limits = zip(box.start, box.stop, images.shape[2:], images.chunks[2:], strict=True)
    cut = images.shape[1] % images.chunks[1] or any(a % c or (b % c and b < n) for a, b, n, c in limits)
    plain = images.id.get_create_plist().get_nfilters() == 0
    checksums = read_checksums(group, name)
    size = (
        0
        if plain and (checksums is not None or not cut)
        else max(_CACHE_BYTES, images.dtype.itemsize * math.prod(images.chunks))
    )
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(521, size, 0.75)
    images = h5py.Dataset(h5py.h5d.open(group.id, name.encode(), access))
    return images if checksums is None else CheckedImages(images, checksums)


def _runs(parts: Sequence[Rows | None], total: int, gap: int) -> list[tuple[int, int]]:
    """Half-open runs of rows that hold all that is wanted; rows less than ``gap`` apart are in one."""
    wanted = [rows for rows in parts if rows is not None]
    if len(wanted) < len(parts):
        return [(0, total)]
    rows = np.unique(np.concatenate(wanted))
    if not rows.size:
        return []
    cuts = np.flatnonzero(np.diff(rows) > gap)
    firsts, lasts = rows[np.append(0, cuts + 1)], rows[np.append(cuts, -1)]
    return [(int(a), int(b) + 1) for a, b in zip(firsts, lasts, strict=True)]


def _shifted(index: slice, by: int) -> slice:
    return slice(index.start + by, index.stop + by)


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
