"""The files of a source, be it a folder, a tar archive or a zip archive. Archives are read in place.

Nothing is ever extracted to a path that an archive names, and no member is read that is absurdly large.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import re
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ...environment import no_room
from ...errors import UserError

MOST_BYTES = 1 << 31
"""No file of any kind of source is as large as this."""
_MOST_HEADER = 1 << 20
_DEEPEST = 6
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
_OPENERS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How members of zip archives may be compressed: Python unpacks these in pieces, so that none outgrows its size."""


class Tree(ABC):
    """Files by relative name.

    Attributes:
        path: the folder or archive.
        files: names with ``/`` between their parts, in the order in which they are read fastest. Hidden files are left
            out, and so are those that macOS adds to archives.
        in_order: whether reading them in another order, or by several threads at once, is slow.
    """

    path: Path
    files: tuple[str, ...]
    in_order = False

    @abstractmethod
    def reader(self) -> contextlib.AbstractContextManager[Callable[[str], bytes]]:
        """Opens the tree; gives a function from the name of a file to its content, which raises UserError."""

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            UserError: it can't be read, or is absurdly large.
        """
        with self.reader() as read:
            return read(name)

    def where(self, name: str) -> str:
        """The file in messages."""
        return str(self.path / name)

    def by_name(self) -> dict[str, str]:
        """From the last part of a name to the whole; of several files the first."""
        return {name.rpartition("/")[2]: name for name in reversed(self.files)}


def open_tree(path: Path) -> Tree:
    """The tree of a folder or an archive, told by its content.

    Raises:
        UserError: not there, neither of both, damaged, or an archive that names a path outside of itself or a member
            of absurd size.
    """
    if path.is_dir():
        return _Folder(path)
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; name the folder or archive of the data set") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return _Zip(path)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return _Tar(path, opener)
    if start[257:262] == b"ustar":
        return _Tar(path, lambda path: path.open("rb"))
    raise UserError(f"{path} is neither a folder nor a tar or zip archive")


def check_size(size: int, where: str) -> None:
    """Refuses a file before it is read.

    Raises:
        UserError: it is larger than :data:`MOST_BYTES`, or than what memory is free.
    """
    if not 0 <= size <= MOST_BYTES:
        raise UserError(f"{where} claims to be {size:,} bytes large; {MOST_BYTES:,} are the most that are read")
    if fault := no_room(size):
        raise UserError(f"{where} claims to be {size:,} bytes large: {fault}")


def _is_shown(name: str) -> bool:
    return name != "" and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _checked_name(name: str, archive: Path) -> str:
    """A member's name without ``./`` in front."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise UserError(f"{archive} has a member named {name!r}, which leads outside of it; don't trust this archive")
    return "/".join(parts)


class _Folder(Tree):
    def __init__(self, path: Path) -> None:
        self.path = path
        found = []
        for folder, folders, files in os.walk(path, followlinks=True):
            parts = Path(folder).relative_to(path).parts
            if len(parts) >= _DEEPEST:  # a link to a folder above it leads on for ever
                folders.clear()
            found += [(*parts, name) for name in files]
        self.files = tuple(name for name in map("/".join, sorted(found)) if _is_shown(name))

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[str], bytes]]:
        yield self._content

    def _content(self, name: str) -> bytes:
        try:
            with (self.path / name).open("rb") as file:
                check_size(os.fstat(file.fileno()).st_size, self.where(name))
                return file.read()
        except OSError as error:
            raise UserError(f"{self.where(name)} can't be read: {error.strerror or error}") from error


class Files(_Folder):
    """Files that were named one by one, in that order; hidden ones as well.

    Args:
        names: paths.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.path, self.files = Path(), tuple(names)


class _Zip(Tree):
    def __init__(self, path: Path) -> None:
        self.path = path
        found = []
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    name = _checked_name(member.filename, path)
                    check_size(member.file_size, self.where(name))
                    if member.compress_type not in _PLAIN:
                        raise UserError(f"{self.where(name)} is not compressed by deflate; pack the archive again")
                    if not member.filename.endswith("/") and _is_shown(name):
                        found.append((name.split("/"), name, member.filename))
        except UserError:
            raise
        except READ_ERRORS as error:
            raise UserError(f"{path} is damaged: {error}; fetch it again") from error
        self._members = {name: member for _, name, member in sorted(found)}
        self.files = tuple(self._members)

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[str], bytes]]:
        with zipfile.ZipFile(self.path) as archive:

            def read(name: str) -> bytes:
                try:
                    with archive.open(self._members[name]) as stream:
                        # In one piece, archive.read would unpack more than the size that was checked.
                        return stream.read(archive.getinfo(self._members[name]).file_size + 1)
                except READ_ERRORS as error:
                    raise UserError(f"{self.where(name)} is damaged: {error}") from error

            yield read


class _Tar(Tree):
    in_order = True

    def __init__(self, path: Path, opener: Callable[[Path], Any]) -> None:
        self.path = path
        self._open = opener
        self._members: dict[str, tuple[int, int]] = {}
        try:
            with opener(path) as stream, tarfile.open(fileobj=_Headers(stream), mode="r:") as archive:  # type: ignore[call-overload]
                for member in archive:
                    name = _checked_name(member.name, path)
                    check_size(member.size, self.where(name))
                    if member.isreg() and not member.issparse() and _is_shown(name):
                        self._members[name] = (member.offset_data, member.size)
        except UserError:
            raise
        except READ_ERRORS as error:
            raise UserError(f"{path} is damaged or no tar archive: {error}; fetch it again") from error
        self.files = tuple(self._members)

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[str], bytes]]:
        with self._open(self.path) as stream:

            def read(name: str) -> bytes:
                offset, size = self._members[name]
                try:
                    stream.seek(offset)
                    content: bytes = stream.read(size)
                except READ_ERRORS as error:
                    raise UserError(f"{self.where(name)} is damaged: {error}") from error
                if len(content) != size:
                    raise UserError(f"{self.where(name)} is truncated: {len(content)} of {size} bytes")
                return content

            yield read


class _Headers:
    """A stream of which headers are read, never as much as a header that lies may ask for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header claims to be {size:,} bytes large")
        return self._stream.read(size)


def stem(path: Path) -> str:
    """The name of a source without the endings of archives.

    >>> stem(Path("flower_photos.tar.gz"))
    'flower_photos'
    """
    return re.sub(r"(\.tar)?\.(tgz|tar|gz|bz2|xz|zip|npz)$", "", path.name) or path.name
