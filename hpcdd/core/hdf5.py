"""HDF5 files: opened where they come from elsewhere, and written where the disk may be full."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from . import interruption
from .errors import UserError

_MOST_PACKED = 1100
"""Bytes that one may stand for: deflate, of the filters that HDF5 brings with it, makes 1032 of one."""
_SMALL = 1 << 20
"""Bytes that may be asked for whatever is stored: of constant numbers other filters store next to nothing."""


@contextlib.contextmanager
def open_hdf5(path: Path, where: str, what: str, if_not_hdf5: str, if_empty: str) -> Iterator[h5py.File]:
    """Opens a file for reading, without locks, so that any number of ranks can share it.

    Args:
        path: the file.
        where: the file in messages.
        what: is wanted, such as ``a dataset file``.
        if_not_hdf5: what to do in this case.
        if_empty: what to do in this case.

    Raises:
        UserError: missing, unreadable, not HDF5 or truncated; also for damage that is met inside the ``with`` block.
    """
    try:
        kind = "a folder" if path.is_dir() else "not a file, but a device or a pipe" if path.exists() else "not there"
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:  # too long a name, for one
        raise UserError(f"{where} can't be a file: {error.strerror}") from error
    if size is None:
        raise UserError(f"{where} is {kind}; name {what}")
    if size == 0:
        raise UserError(f"{where} is empty (0 bytes); {if_empty}")
    try:
        if not h5py.is_hdf5(path):
            raise UserError(f"{where} is not an HDF5 file; {if_not_hdf5}")
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except OSError as error:
        reason = "permission denied" if isinstance(error, PermissionError) else str(error).splitlines()[0]
        if end := re.search(r"truncated file: .*stored_eof = (\d+)", reason):
            raise UserError(
                f"{where} is truncated: it has {size:,} of {int(end[1]):,} bytes; copy or make it again"
            ) from error
        raise UserError(f"{where} can't be read: {reason}; it may be truncated, copy or make it again") from error


@contextlib.contextmanager
def damage_reported(message: Callable[[str], str]) -> Iterator[None]:
    """Reports damage of an open file, which h5py and numpy raise as errors of many types, as a UserError.

    Args:
        message: its text, from the reason.
    """
    try:
        yield
    except UserError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(message((str(error) or type(error).__name__).splitlines()[0])) from error


def number_of(version: Any) -> Any:
    """The number of a file's format, where it stands there as text; else as it is."""
    text = version.decode("ascii", "replace") if isinstance(version, bytes) else version
    return int(text) if isinstance(text, str) and text.isdecimal() else version


def other_format(file: h5py.File, attribute: str, known: int) -> str | None:
    """What an attribute says of a file's format, as text, if it is not the ``known`` one; else None."""
    version = number_of(file.attrs.get(attribute))
    if np.ndim(version) or version != known:
        return f"no attribute {attribute}" if version is None else f"its format is {version}"
    return None


def leads_outside(group: h5py.Group, name: str) -> str | None:
    """Why a member of a group does not lie in the file itself; None if it does, or if there is none."""
    if group.get(name, getclass=True, getlink=True) not in (h5py.HardLink, None):
        return "is a link"
    member = group.get(name)
    if isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
        return "points to other files"
    return None


def missing(dataset: h5py.Dataset) -> str | None:
    """What is missing so that a dataset can be read: a filter, or bytes; None where nothing is.

    A small file can announce any number of bytes. What it does not hold is not asked for.
    """
    settings, stored = dataset.id.get_create_plist(), dataset.id.get_storage_size()
    filters = [settings.get_filter(number) for number in range(settings.get_nfilters())]
    for code, _, _, name in filters:
        if not h5py.h5z.filter_avail(code):
            known = name.decode("ascii", "replace").partition(";")[0]
            return (
                f"is packed by the filter {code} ({known or 'without a name'}), which is not installed here; on a "
                "machine that has it, rewrite the file by `h5repack -f GZIP=4 IN OUT`, or set HDF5_PLUGIN_PATH to the "
                "filter's folder"
            )
    if dataset.shape is None:
        return None
    needed = dataset.size * dataset.dtype.itemsize
    if dataset.chunks is not None:
        chunks = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        if (there := dataset.id.get_num_chunks()) < chunks:
            return f"stores only {there:,} of the {chunks:,} chunks of its {needed:,} bytes"
        needed = chunks * math.prod(dataset.chunks) * dataset.dtype.itemsize
    least = -(-(needed - _SMALL) // _MOST_PACKED) if filters else needed
    return f"stores {stored:,} bytes, too few for its {needed:,} bytes" if stored < least else None


def whole(dataset: h5py.Dataset) -> npt.NDArray[Any]:
    """All of a dataset.

    Raises:
        ValueError: the file does not hold it, or memory has no room for it.
    """
    if fault := missing(dataset):
        raise ValueError(f"{dataset.name} {fault}")
    try:
        values: npt.NDArray[Any] = np.asarray(dataset[()])
    except MemoryError as error:
        raise ValueError(f"there is not enough memory for the {dataset.nbytes:,} bytes of {dataset.name}") from error
    return values


def first_fault(file: h5py.File) -> str | None:
    """The first member of any group that does not lie in the file itself, or not all of it, and why; None if all do."""
    groups = [file]
    file.visititems(lambda _, item: groups.append(item) if isinstance(item, h5py.Group) else None)  # follows no link
    for group in groups:
        for name in group:
            member = None if (fault := leads_outside(group, name)) else group[name]
            if isinstance(member, h5py.Dataset):
                fault = missing(member)
            if fault:
                return f"{group.name.rstrip('/')}/{name} {fault}"
    return None


@contextlib.contextmanager
def new_hdf5(path: Path, **options: Any) -> Iterator[h5py.File]:
    """A new HDF5 file to write into.

    The library itself may crash where a write fails, so the failure is hidden from it. Nor may a signal handler raise
    while it writes: signals wait for the end of the block, or for :func:`hpcdd.core.interruption.point`.

    Args:
        path: of the file.
        options: of ``h5py.File``.

    Raises:
        OSError: at the end of the block, if a write failed; the file is worth nothing then.
    """
    with interruption.deferred(), _Disk(path) as disk:
        with h5py.File(disk, "w", **options) as file:
            yield file
        if disk.error is not None:
            raise disk.error


class _Disk(io.FileIO):
    """A file that keeps the first error for the end, and lets the library continue as if everything was written."""

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

    def truncate(self, size: int | None = None) -> int:
        """Beyond a limit on the size of files this fails as well."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return self.tell() if size is None else size
