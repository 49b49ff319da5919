"""HDF5 files whose writing may fail: the library itself may crash where the disk is full, so it does not hear of it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from .files import written_whole


@contextlib.contextmanager
def written_hdf5(path: Path, **options: Any) -> Iterator[h5py.File]:
    """An HDF5 file to write into; it takes its name when the block ends well, see :func:`hpcdd.files.written_whole`.

    Args:
        path: of the file.
        options: of ``h5py.File``.

    Raises:
        OSError: at the end of the block, if a write failed.
    """
    with written_whole(path) as temporary:
        with _Disk(temporary) as disk, h5py.File(disk, "w", **options) as file:
            yield file
        if disk.error is not None:
            raise disk.error


class _Disk(io.FileIO):
    """A file that keeps the first error of a write for the end, and lets the library go on as if nothing had been."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+b")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """All of ``data``, also where the system writes a part at a time."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.error is None:
            try:
                rest = rest[os.write(self.fileno(), rest) :]
            except OSError as error:
                self.error = error
        if self.error is not None:
            self.seek(size, os.SEEK_CUR)
        return size
