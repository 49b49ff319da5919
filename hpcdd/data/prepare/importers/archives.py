"""Tar and zip archives as trees, read in place; a compressed tar archive is unpacked in a nameless temporary file.

Nothing is ever extracted to a path that an archive names, no link leads out of it, and no member is read that is
absurdly large. A tar archive whose end is not there, or that continues beyond its end, is refused: files are missing.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import weakref
import zipfile
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from ....core.errors import UserError
from ....core.files import decoded, readable
from .file_tree import READ_ERRORS, ArchiveReader, Entry, FolderTree, check_size

_MOST_HEADER = 1 << 20
_MOST_LINKS = 40
"""Links behind each other, as of Linux."""
_MOST_TARGET = 4096
_BLOCK = tarfile.BLOCKSIZE
_CHUNK_BYTES = 1 << 20
_OPENERS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How members of zip archives may be compressed: Python unpacks these in chunks, so that none outgrows its size."""


def open_tree(path: Path) -> ArchiveReader:
    """The tree of a folder or an archive, recognised by its content.

    Raises:
        UserError: missing, neither of the two, damaged, or an archive that names a path outside of itself or a member
            of absurd size.
    """
    if path.is_dir():
        return FolderTree(path)
    try:
        with path.open("rb") as file:
            start = file.read(_BLOCK)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; name the folder or archive of the data set") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return _Zip(path)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return _Tar(path, opener)
    if _is_header(start):
        return _Tar(path, None)
    raise UserError(f"{path} is neither a folder nor a tar or zip archive")


class _Member(NamedTuple):
    """What an archive holds under a name.

    Attributes:
        kind: ``other`` is a device, a pipe, or nothing that this reader knows.
        location: where its content is.
        target: of a link.
    """

    kind: Literal["file", "folder", "symbolic link", "hard link", "other"]
    location: Any = None
    target: str = ""


_FOLDER = _Member("folder")


class _Archive(ArchiveReader):
    """Members by name; ``_follow`` is the advice where links lead nowhere."""

    _follow: str

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._members = dict(self._read_members())
        except UserError:
            raise
        except READ_ERRORS as error:
            raise UserError(f"{path} is damaged or not a valid archive: {error}; download it again") from error
        self._children: dict[str, list[str]] = {"": []}
        for name in list(self._members):
            self._add_to_folder(name)
        super().__init__(path, Entry("", "", ""))

    @abstractmethod
    def _read_members(self) -> Iterator[tuple[str, _Member]]:
        """All members; of several with one name the last counts."""

    def _add_to_folder(self, name: str) -> None:
        """Lists a member in its folder, and that in its own, which archives need not name."""
        while name:
            folder, _, last = name.rpartition("/")
            known = folder in self._children
            self._children.setdefault(folder, []).append(last)
            if folder and self._members.setdefault(folder, _FOLDER).kind != "folder":
                raise UserError(f"{self.path} contains {folder} both as a folder and as something else; pack it again")
            if known:
                return
            name = folder

    def _entries(self, key: str) -> Iterator[Entry]:
        for last in dict.fromkeys(self._children.get(key, ())):
            name = f"{key}/{last}" if key else last
            real, fault = self._resolved(name)
            if fault:
                yield Entry(last, None, linked=True, fault=fault)
            elif real == "" or self._members[real].kind == "folder":
                yield Entry(last, real, real, linked=real != name)
            else:
                yield Entry(
                    last,
                    self._members[real].location,
                    fault="is neither a file nor a folder nor a link" * (self._members[real].kind == "other"),
                )

    def _resolved(self, name: str) -> tuple[str, str]:
        """The member to which a name leads by way of all links; or why it leads nowhere."""
        member = self._members[name]
        if not member.target:
            return name, ""
        fault = f"is a {member.kind} to {member.target}, which points outside the archive; {self._follow}"
        done: list[str] = []
        waiting, links = deque(name.split("/")), 0
        while waiting:
            part = waiting.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    return "", fault
                done.pop()
                continue
            done.append(part)
            here = self._members.get("/".join(done))
            if here is None:
                return "", f"is a {member.kind} to {member.target}, which is not in the archive; {self._follow}"
            if here.target:
                links += 1
                if links > _MOST_LINKS:
                    return "", f"is a {member.kind} to {member.target}, which leads in a circle; remove the link"
                if here.kind == "hard link":
                    done.clear()
                elif here.target.startswith("/"):
                    return "", fault
                else:
                    done.pop()
                waiting.extendleft(reversed(here.target.split("/")))
        return "/".join(done), ""

    def _checked_name(self, name: str) -> str:
        """A member's name without ``./`` in front."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise UserError(
                f"{self.path} has a member named {name!r}, which points outside the archive; don't trust it"
            )
        return "/".join(parts)


class _Zip(_Archive):
    _follow = "pack it again with links followed (zip -r does)"

    def _read_members(self) -> Iterator[tuple[str, _Member]]:
        self._archive = zipfile.ZipFile(self.path)  # which locks its file for each read, so that threads can share it
        weakref.finalize(self, self._archive.close)
        seen: set[str] = set()
        for member in self._archive.infolist():
            # The separator is "/" by the format, and "\" by some programs on Windows.
            name = self._checked_name(_name(member).replace("\\", "/").split("\0")[0])
            check_size(member.file_size, self.where(name))
            if member.compress_type not in _PLAIN:
                raise UserError(f"{self.where(name)} is not compressed by deflate; pack the archive again")
            if member.flag_bits & 1:
                raise UserError(f"{self.where(name)} is encrypted; unpack the archive and name its folder")
            if not name:
                continue
            if member.filename.endswith(("/", "\\")):
                yield name, _FOLDER
                continue
            if name in seen:
                raise UserError(f"{self.path} contains {name} twice, which is ambiguous; pack it again")
            seen.add(name)
            if stat.S_ISLNK(member.external_attr >> 16):
                with self._archive.open(member) as stream:
                    yield name, _Member("symbolic link", target=decoded(stream.read(_MOST_TARGET)))
            else:
                yield name, _Member("file", member)

    def _content(self, name: str) -> bytes:
        member = self._keys[name]
        try:
            with self._archive.open(member) as stream:
                # Without a size, or by ZipFile.read, more would be unpacked than the size that was checked.
                return stream.read(member.file_size + 1)
        except READ_ERRORS as error:
            raise UserError(f"{self.where(name)} is damaged: {error}") from error


def _name(member: zipfile.ZipInfo) -> str:
    """A name in UTF-8 says so; else it is in the bytes of some system, that zipfile takes for DOS."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        content = member.filename.encode("cp437")
    except UnicodeEncodeError:  # it was given in Unicode besides, and zipfile took that
        return member.filename
    return decoded(content, "latin-1" if member.create_system == 3 else "cp437")


class _Tar(_Archive):
    _follow = "pack it again with links followed (tar --dereference)"

    def __init__(self, path: Path, opener: Callable[[Path], Any] | None) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if opener is None else self._unpacked(opener)
        weakref.finalize(self, os.close, self._descriptor)
        super().__init__(path)

    def _unpacked(self, opener: Callable[[Path], Any]) -> int:
        """A copy without a name, so that members can be read in any order."""
        try:
            with tempfile.TemporaryFile() as copy:
                most, size = shutil.disk_usage(tempfile.gettempdir()).free // 2, 0
                for chunk in self._chunks(opener):
                    size += len(chunk)
                    if size > most:
                        raise UserError(
                            f"{self.path} unpacks to more than {most:,} bytes, half of the free space in "
                            f"{tempfile.gettempdir()}; set TMPDIR to a larger folder, or unpack the archive and name "
                            "its folder"
                        )
                    copy.write(chunk)
                copy.flush()
                return os.dup(copy.fileno())
        except OSError as error:
            raise UserError(
                f"{self.path} can't be unpacked into a temporary file: {error}; set TMPDIR to another folder, or "
                "unpack the archive and name its folder"
            ) from error

    def _chunks(self, opener: Callable[[Path], Any]) -> Iterator[bytes]:
        try:
            with opener(self.path) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    yield chunk
        except READ_ERRORS as error:
            raise UserError(f"{self.path} is damaged or not a tar archive: {error}; download it again") from error

    def _read_members(self) -> Iterator[tuple[str, _Member]]:
        with open(os.dup(self._descriptor), "rb") as stream:
            stream.seek(0)
            headers: Any = _Headers(stream)
            with tarfile.open(fileobj=headers, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
                last = "its beginning"
                for member in archive:
                    name = last = self._checked_name(readable(member.name))
                    check_size(member.size, self.where(name))
                    if name:
                        yield name, _tar_member(member)
                self._check_end(stream, archive.offset, last)

    def _check_end(self, stream: IO[bytes], offset: int, last: str) -> None:
        """Python's reader ends without a word at a header that is damaged or not there."""
        stream.seek(offset)
        block = stream.read(_BLOCK)
        if len(block) < _BLOCK:
            raise UserError(
                f"{self.path} is truncated: it ends after {last}, without an end-of-archive block; download it again"
            )
        if any(block):
            raise UserError(
                f"{self.path} is damaged: at byte {offset:,}, after {last}, there is no header; download it again"
            )
        while chunk := stream.read(_CHUNK_BYTES):
            for start in range(0, len(chunk), _BLOCK):
                if _is_header(chunk[start : start + _BLOCK]):
                    raise UserError(
                        f"{self.path} continues beyond its end at byte {offset:,}, after {last}: it is damaged, or "
                        "holds two archives; download it again, or pack it as one archive"
                    )

    def _content(self, name: str) -> bytes:
        size, extents = self._keys[name]
        content = bytearray()
        for offset, start, length in extents:
            content += bytes(start - len(content))
            while len(content) < start + length:
                chunk = os.pread(self._descriptor, start + length - len(content), offset + len(content) - start)
                if not chunk:
                    raise UserError(f"{self.where(name)} is truncated: {len(content)} of {size} bytes")
                content += chunk
        return bytes(content) + bytes(size - len(content))


def _tar_member(member: tarfile.TarInfo) -> _Member:
    """The location of a file is its size, and its extents: (offset in the archive, offset in the file, length)."""
    if member.isdir():
        return _FOLDER
    if member.issym() or member.islnk():
        kind: Literal["symbolic link", "hard link"] = "symbolic link" if member.issym() else "hard link"
        return _Member(kind, target=readable(member.linkname))
    if not member.isreg():
        return _Member("other")
    extents, offset, end = [], member.offset_data, 0
    sparse: Any = member.sparse if member.issparse() else [(0, member.size)]
    for start, length in sparse:
        if not length:  # the end of a file that ends in a hole, or padding of the list
            continue
        if not end <= start <= start + length <= member.size:
            raise tarfile.ReadError(f"{member.name} is sparse, and its blocks are not in order")
        extents.append((offset, start, length))
        offset, end = offset + length, start + length
    return _Member("file", (member.size, extents))


def _is_header(block: bytes) -> bool:
    return block[257:262] == b"ustar"


class _Headers:
    """A stream of which headers are read, never as much as a false header may ask for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header claims a size of {size:,} bytes")
        return self._stream.read(size)
