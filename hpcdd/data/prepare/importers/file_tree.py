"""The files of a source, be it a folder or an archive (see :mod:`hpcdd.data.prepare.importers.archives`), by relative
name.

Links are followed; what is hidden, or litter of file servers and of hpcdd itself, is left out and counted.
"""

from __future__ import annotations

import contextlib
import itertools
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ....core.environment import no_room
from ....core.errors import UserError
from ....core.files import readable
from .unused_files import Unused, suffix_of

MOST_BYTES = 1 << 31
"""No file of any kind of source is as large as this."""
_DEEPEST = 100
_MOST_LINKED = 100_000
"""Folders that are reached through links, each time that they are: a few links to each other can be 2^n ways."""
READ_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,  # an encrypted member of a zip archive
    NotImplementedError,  # its compression
    ValueError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
"""What a damaged file or archive makes Python's readers raise."""
_LITTER = frozenset(
    {
        "__macosx",
        "@eadir",
        "#recycle",
        "@recycle",
        "#snapshot",
        "lost+found",
        "$recycle.bin",
        "system volume information",
    }
)
"""Folders that file servers and systems make, in lower case."""
_DATASETS = (".h5", ".hdf5")

_Parts = tuple[str, ...]


class Entry(NamedTuple):
    """One name in a folder.

    Attributes:
        name: its last part.
        key: what finds it: the content of a file, or the entries of a folder.
        folder: for a folder what identifies it, by whatever way it is reached; None for a file.
        linked: whether it is a link to a folder, or one that leads nowhere.
        fault: why it can't be read; empty if it can.
    """

    name: str
    key: Any
    folder: Hashable | None = None
    linked: bool = False
    fault: str = ""


class ArchiveReader(ABC):
    """Files by relative name.

    Attributes:
        path: the folder or archive.
        files: names with ``/`` between their parts, sorted part by part: the same of a folder and of its archives. A
            link that leads nowhere is a file that can't be read.
        folders: names of the folders, that of a link that leads nowhere among them.
        unused: what is no part of a data set, by its name alone.
    """

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]
    unused: Unused

    def __init__(self, path: Path, root: Entry) -> None:
        self.path = path
        self.unused = Unused()
        files, folders = self._survey(root)
        self._keys = {"/".join(parts): entry.key for parts, entry in files}
        self._faults = {"/".join(parts): entry.fault for parts, entry in files if entry.fault}
        self.files = tuple("/".join(parts) for parts, _ in files)
        self.folders = tuple(map("/".join, folders))
        for before, name in itertools.pairwise(self.files):
            if before == name:
                raise UserError(f"{self.where(name)} is the name of two files, one of them not in UTF-8; rename one")

    def read(self, name: str) -> bytes:
        """The content of one file; several threads may read at once.

        Raises:
            UserError: it can't be read, or is absurdly large.
        """
        if name in self._faults:
            raise UserError(f"{self.where(name)} {self._faults[name]}")
        return self._content(name)

    def where(self, name: str) -> str:
        """The file in messages."""
        return readable(str(self.path / name))

    def by_name(self) -> dict[str, str]:
        """From the last part of a name to the whole; of several files the first."""
        return {name.rpartition("/")[2]: name for name in reversed(self.files)}

    @abstractmethod
    def _content(self, name: str) -> bytes:
        """The content of a file that has no fault."""

    @abstractmethod
    def _entries(self, key: Any) -> Iterable[Entry]:
        """What is in a folder; raises OSError."""

    def _survey(self, root: Entry) -> tuple[list[tuple[_Parts, Entry]], list[_Parts]]:
        """All files and all folders by the parts of their names, sorted."""
        files: list[tuple[_Parts, Entry]] = []
        folders: list[_Parts] = []
        waiting: list[tuple[_Parts, Any, tuple[Hashable, ...]]] = [((), root.key, (root.folder,))]
        linked = 0
        while waiting:
            parts, key, above = waiting.pop()
            try:
                entries = list(self._entries(key))
            except OSError as error:
                raise UserError(f"{self.where('/'.join(parts))} can't be read: {error.strerror or error}") from error
            sheets = {entry.name.rpartition(".")[0] + ".png" for entry in entries if entry.name.endswith(_DATASETS)}
            for entry in entries:
                here = (*parts, entry.name)
                name = "/".join(here)
                if reason := _reason(entry.name):
                    self._leave_out(name, entry, reason)
                elif entry.name in sheets:
                    self.unused.add(name, "contact sheet of a dataset file")
                elif entry.folder is None:
                    files.append((here, entry))
                    if entry.linked and not suffix_of(name):  # it may have been one
                        folders.append(here)
                else:
                    linked += entry.linked
                    if entry.linked and entry.folder in above:
                        raise UserError(f"{self.where(name)} is a link to a folder that contains it; remove the link")
                    if linked > _MOST_LINKED or len(here) > _DEEPEST:
                        raise UserError(
                            f"{self.where(name)}: folders are nested more than {_DEEPEST} deep, or more than "
                            f"{_MOST_LINKED:,} are reached through links; don't trust this source"
                        )
                    folders.append(here)
                    waiting.append((here, entry.key, (*above, entry.folder)))
        return sorted(files, key=lambda file: file[0]), sorted(folders)

    def _leave_out(self, name: str, entry: Entry, reason: str) -> None:
        """Counts a file, or the files of a folder."""
        if entry.folder is None or entry.linked:
            self.unused.add(name, reason)
            return
        waiting = [entry.key]
        while waiting:
            with contextlib.suppress(OSError):  # lost+found is the administrator's
                for inner in self._entries(waiting.pop()):
                    if inner.folder is None or inner.linked:
                        self.unused.add_to(name, "files", reason)
                    else:
                        waiting.append(inner.key)


def check_size(size: int, where: str) -> None:
    """Refuses a file before it is read.

    Raises:
        UserError: it is larger than :data:`MOST_BYTES`, or than what memory is free.
    """
    if not 0 <= size <= MOST_BYTES:
        raise UserError(f"{where} claims a size of {size:,} bytes; the limit is {MOST_BYTES:,}")
    if fault := no_room(size):
        raise UserError(f"{where} claims a size of {size:,} bytes: {fault}")


def _reason(name: str) -> str | None:
    """Why a file or folder is no part of a data set, by its name."""
    if name.startswith("."):
        return "hidden"
    return "made by a file server or system" if name.lower() in _LITTER else None


class FolderTree(ArchiveReader):
    """A folder. Links may lead anywhere: a folder of links is a usual way to choose among the files of another."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Entry("", str(path), _identity(path.stat())))

    def _entries(self, key: str) -> Iterator[Entry]:
        with os.scandir(key) as listed:
            for item in listed:
                name = readable(item.name)
                try:
                    status = item.stat() if item.is_dir() or item.is_symlink() else None
                except OSError as error:
                    yield Entry(name, item.path, None, linked=True, fault=f"is a broken link: {error.strerror}")
                    continue
                if item.is_dir():
                    assert status is not None
                    yield Entry(name, item.path, _identity(status), item.is_symlink())
                else:
                    fault = "" if item.is_file() else "is neither a file nor a folder but a device or a pipe"
                    yield Entry(name, item.path, fault=fault)

    def _content(self, name: str) -> bytes:
        try:
            with open(self._keys.get(name, name), "rb") as file:
                check_size(os.fstat(file.fileno()).st_size, self.where(name))
                return file.read()
        except OSError as error:
            raise UserError(f"{self.where(name)} can't be read: {error.strerror or error}") from error


class Files(FolderTree):
    """Files that were named one by one, in that order; hidden ones as well.

    Args:
        names: paths.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.path, self.files, self.folders, self.unused = Path(), tuple(names), (), Unused()
        self._keys, self._faults = {}, {}


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def stem(path: Path) -> str:
    """The name of a source without the endings of archives.

    >>> stem(Path("flower_photos.tar.gz"))
    'flower_photos'
    """
    return re.sub(r"(\.tar)?\.(tgz|tar|gz|bz2|xz|zip|npz)$", "", path.name) or path.name
