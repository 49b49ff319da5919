"""Checksums: of every chunk of pixels, checked whenever it is read; and of all that a dataset file says of itself.

HDF5's own filter for this, Fletcher-32, takes as long as the reading itself and can't tell zeros from bytes of 255.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..core.errors import UserError

Array = npt.NDArray[Any]
Index = tuple[slice, ...]
_WORDS = 512
"""Words of 8 bytes in a line. Lines of 4 KiB are what disks and memories lose or swap as a whole."""
SUFFIX = "_checksums"


def checksum(pixels: Array) -> int:
    """64 bits that change with an array; in a quarter of the time of a CRC-32 of all its bytes.

    The bytes are laid out in lines. The upper half is the CRC-32 of the lines' parity, the lower half that of the
    lines' sums and of the bytes behind the last line. One changed bit always changes the checksum. Two or three change
    the parity or the sums, and so do lines that are zeroed or swapped; the CRC-32 then misses one in 2^32.

    Args:
        pixels: of any dtype and shape, contiguous.
    """
    data = pixels.reshape(-1).view(np.uint8)
    whole = len(data) - len(data) % (8 * _WORDS)
    lines: Array = data[:whole]
    if lines.ctypes.data % 8:  # numpy is slow where words are not aligned
        lines = lines.copy()
    lines = lines.view("<u8").reshape(-1, _WORDS)
    parity, sums = np.bitwise_xor.reduce(lines, axis=0), lines.sum(axis=1)
    return zlib.crc32(parity.data) << 32 | zlib.crc32(data[whole:].data, zlib.crc32(sums.data))


def grid_of_chunks(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    """Chunks along each axis: the shape of a dataset's checksums."""
    return tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))


def checksums_of(pixels: Array, chunk: Sequence[int]) -> Array:
    """The checksum of each chunk, uint64 of the shape of the grid; chunks at the ends have what is there."""
    grid = grid_of_chunks(pixels.shape, chunk)
    sums = np.empty(grid, np.uint64)
    for cell in np.ndindex(*grid):
        index = tuple(slice(k * c, (k + 1) * c) for k, c in zip(cell, chunk, strict=True))
        sums[cell] = checksum(np.ascontiguousarray(pixels[index]))
    return sums


class CheckedImages:
    """A dataset of pixels that is read by whole chunks, each of which is checked. It reads like a h5py.Dataset.

    Args:
        images: in chunks.
        checksums: of all its chunks.
    """

    def __init__(self, images: h5py.Dataset, checksums: Array) -> None:
        self._images, self._checksums = images, checksums
        self.shape: tuple[int, ...] = images.shape
        self.chunks: tuple[int, ...] = images.chunks
        self.dtype, self.ndim = images.dtype, images.ndim
        self._plain = images.id.get_create_plist().get_nfilters() == 0
        self._memory: Array = np.empty(self.chunks, self.dtype)

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, index: Index) -> Array:
        """The pixels of a box, given by a slice with both ends for each axis."""
        pixels: Array = np.empty([s.stop - s.start for s in index], self.dtype)
        self.read_direct(pixels, index, (slice(None),) * self.ndim)
        return pixels

    def read_direct(self, dest: Array, source_sel: Index, dest_sel: Index) -> None:
        """Reads the pixels of a box into a part of an array; a chunk that lies there as in the file, without a copy.

        Raises:
            UserError: they are not what was written.
        """
        target = dest[dest_sel]
        met = (range(s.start // c, -(-s.stop // c)) for s, c in zip(source_sel, self.chunks, strict=True))
        for cell in itertools.product(*met):
            starts = [k * c for k, c in zip(cell, self.chunks, strict=True)]
            wanted = [
                (max(a, s.start), min(a + c, s.stop)) for a, c, s in zip(starts, self.chunks, source_sel, strict=True)
            ]
            part = target[tuple(slice(a - s.start, z - s.start) for (a, z), s in zip(wanted, source_sel, strict=True))]
            direct = part.shape == self.chunks and part.flags.c_contiguous
            pixels = self._read(starts, part if direct else self._memory)
            if checksum(np.ascontiguousarray(pixels)) != self._checksums[cell]:
                raise UserError(
                    f"data.file: {self._images.file.filename} can't be read: {self._images.name[1:]}[{starts[0]}] to "
                    f"[{starts[0] + len(pixels) - 1}] are damaged (wrong checksum); copy or make it again"
                )
            if not direct:
                part[...] = pixels[tuple(slice(a - k, z - k) for (a, z), k in zip(wanted, starts, strict=True))]

    def _read(self, starts: Sequence[int], memory: Array) -> Array:
        """Reads a chunk into memory that has room for it; what there is of it."""
        shape = tuple(min(c, n - a) for a, c, n in zip(starts, self.chunks, self.shape, strict=True))
        if self._plain:  # at twice the speed of what follows
            self._images.id.read_direct_chunk(tuple(starts), out=memory.reshape(-1).view(np.uint8).data)
            return memory[tuple(map(slice, shape))]
        pixels = memory.reshape(-1)[: math.prod(shape)].reshape(shape)
        space = self._images.id.get_space()
        space.select_hyperslab(tuple(starts), shape)
        self._images.id.read(h5py.h5s.create_simple(shape), space, pixels)
        return pixels


def read_checksums(group: h5py.Group, name: str) -> Array | None:
    """The checksums of a dataset's chunks; None for a file without."""
    return group[name + SUFFIX][()] if name + SUFFIX in group else None


def fingerprint(header: Mapping[str, Any], labels: Mapping[str, Array], pixels: Iterable[bytes]) -> str:
    """SHA-256 of all that makes up a data set, as 64 hexadecimal digits.

    Args:
        header: what the file says of itself, of plain types.
        labels: int64 (n,) by split.
        pixels: what identifies them: their checksums.
    """
    digest = hashlib.sha256(json.dumps([header, {split: len(values) for split, values in labels.items()}]).encode())
    for part in itertools.chain((values.astype("<i8").tobytes() for values in labels.values()), pixels):
        digest.update(hashlib.sha256(part).digest())  # of equal length, so that no part can pass for two
    return digest.hexdigest()
