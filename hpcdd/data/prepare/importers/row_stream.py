"""Arrays that lie row by row in a file, compressed or not: read from front to back in blocks, never all at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ....core.environment import no_room
from ....core.errors import UserError
from ....decomposition.boxes import by
from ...split import Indices
from .file_tree import MOST_BYTES, READ_ERRORS

Array = npt.NDArray[Any]
_BLOCK_BYTES = 1 << 23
_MOST_LABELS = 1 << 26


@dataclass(frozen=True)
class StreamedArray:
    """An array (n, ...) in C order.

    Attributes:
        open: gives the stream at its first byte.
        where: the file in messages.
        offset: bytes before the array.
        shape: of the array.
        dtype: as it is stored.
    """

    open: Callable[[], AbstractContextManager[IO[bytes]]]
    where: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        if 0 in self.shape:
            raise UserError(f"{self.where} is empty: its header claims {by(self.shape)} numbers")
        if self.row_bytes > MOST_BYTES:
            raise UserError(
                f"{self.where} is damaged: its header claims {by(self.shape)} numbers, {self.row_bytes:,} bytes an "
                f"image; {MOST_BYTES:,} is the limit"
            )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def rows(self, indices: Indices) -> Iterator[Array]:
        """Blocks (some rows, ...) of the rows at ascending ``indices``.

        Raises:
            UserError: the file is damaged, or ends before them.
        """
        per_block = max(1, _BLOCK_BYTES // self.row_bytes)
        try:
            with self.open() as stream:
                self._read(stream, self.offset)
                for first in range(0, int(indices[-1]) + 1 if indices.size else 0, per_block):
                    count = min(per_block, self.shape[0] - first)
                    content = self._read(stream, count * self.row_bytes)
                    block = np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])
                    inside = indices[np.searchsorted(indices, first) : np.searchsorted(indices, first + count)]
                    if inside.size:
                        yield block[inside - first]
                    if first + count == self.shape[0] and stream.read(1):  # checksums are checked here as well
                        raise UserError(f"{self.where} is damaged: it holds more than {by(self.shape)} numbers")
        except READ_ERRORS as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.where} is damaged: {error}") from error

    def read_all(self) -> Array:
        """All of an array of labels.

        Raises:
            UserError: it is damaged, or no data set has as many.
        """
        if (count := math.prod(self.shape)) > _MOST_LABELS:
            raise UserError(f"{self.where} claims {count:,} labels; {_MOST_LABELS:,} is the limit")
        if fault := no_room(3 * 8 * count):  # as int64, and what is made of them
            raise UserError(f"{self.where} claims {count:,} labels: {fault}")
        return np.concatenate(list(self.rows(np.arange(self.shape[0]))))

    def _read(self, stream: IO[bytes], size: int) -> bytes:
        """``size`` bytes, read in chunks: what a false header asks for is not allocated at once."""
        chunks, missing = [], size
        while missing:
            chunk = stream.read(min(missing, 1 << 24))
            if not chunk:
                raise UserError(
                    f"{self.where} is damaged: its header claims {by(self.shape)} numbers of {self.dtype.itemsize} "
                    "bytes, but it ends before them"
                )
            chunks.append(chunk)
            missing -= len(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
