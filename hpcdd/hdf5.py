"""HDF5 files: opened where they come from elsewhere, and written where the disk may be full."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import UserError


@contextlib.contextmanager
def open_hdf5(path: Path, where: str, what: str, foreign: str, again: str) -> Iterator[h5py.File]:
    """Opens a file for reading, without locks, so that any number of ranks can share it.

    Args:
        path: the file.
        where: the file in messages.
        what: is wanted, such as ``a dataset file``.
        foreign: what to do where the file is not HDF5.
        again: what to do where it is empty.

    Raises:
        UserError: missing, unreadable, not HDF5 or truncated; also for damage that is met inside the ``with`` block.
    """
    try:
        kind = "a folder" if path.is_dir() else "no file, but a device or a pipe" if path.exists() else "not there"
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:  # too long a name, for one
        raise UserError(f"{where} can't be a file: {error.strerror}") from error
    if size is None:
        raise UserError(f"{where} is {kind}; name {what}")
    if size == 0:
        raise UserError(f"{where} is empty (0 bytes); {again}")
    try:
        if not h5py.is_hdf5(path):
            raise UserError(f"{where} is not an HDF5 file; {foreign}")
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
def damage_told(told: Callable[[str], str]) -> Iterator[None]:
    """What is raised where the content of an open file is not what it should be becomes a UserError.

    Args:
        told: its text, from the reason.
    """
    try:
        yield
    except UserError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(told((str(error) or type(error).__name__).splitlines()[0])) from error


def other_format(file: h5py.File, attribute: str, known: int) -> str | None:
    """What an attribute says of a file's format, in words, where it is not the one that is ``known``; else None."""
    version = file.attrs.get(attribute)
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


def first_outside(file: h5py.File) -> str | None:
    """The first member of any group that does not lie in the file itself, and why; None if all of them do."""
    groups = [file]
    file.visititems(lambda _, item: groups.append(item) if isinstance(item, h5py.Group) else None)  # follows no link
    for group in groups:
        for name in group:
            if fault := leads_outside(group, name):
                return f"{group.name.rstrip('/')}/{name} {fault}"
    return None


@contextlib.contextmanager
def new_hdf5(path: Path, **options: Any) -> Iterator[h5py.File]:
    """A new HDF5 file to write into.

    The library itself may crash where a write fails, so it does not hear of it.

    Args:
        path: of the file.
        options: of ``h5py.File``.

    Raises:
        OSError: at the end of the block, if a write failed; the file is worth nothing then.
    """
    with _Disk(path) as disk:
        with h5py.File(disk, "w", **options) as file:
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
