"""Files that are written atomically, and files with a checksum that shows damage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import DamagedError, UserError, WriteError

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")

_MOST_BYTES = 1 << 26
"""Of a JSON file."""
_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_]\w*)|\{([^}]*)\})", re.ASCII)


def expanded(text: str) -> str:
    """The name of a file as a shell would read it: ``~``, ``~user``, ``$NAME`` and ``${NAME}``; ``$$`` is a dollar.

    >>> expanded("cost$$/~")
    'cost$/~'

    Raises:
        ValueError: a variable is not set or empty, or a home is not known.
    """

    def value(match: re.Match[str]) -> str:
        name = match[2] or match[3] or ""
        if match[1]:
            return "$"
        if not os.environ.get(name):
            raise ValueError(f"the environment variable {name!r} is not set; set it, or write $$ for a dollar sign")
        return os.environ[name]

    first, slash, rest = text.partition("/")
    if first.startswith("~"):
        home = os.path.expanduser(first)
        if home == first:
            raise ValueError(f"the home folder {first} is unknown; write ./{first} for a file of this name")
        return home + slash + _VARIABLE.sub(value, rest)
    return _VARIABLE.sub(value, text)


def unexpanded(name: str) -> str:
    """The text that :func:`expanded` makes a name of that it gave.

    >>> unexpanded("/scratch/a$b")
    '/scratch/a$$b'
    """
    return name.replace("$", "$$")


def decoded(content: bytes, fallback: str = "latin-1") -> str:
    r"""Names as text, whatever their bytes are: each part of a path in UTF-8 or, if it is not, in another encoding.

    >>> decoded(b"caf\xe9"), decoded("caf\u00e9".encode()) == decoded(b"caf\xe9")
    ('caf\xe9', True)
    """

    def part(content: bytes) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content.decode(fallback)

    return "/".join(map(part, content.split(b"/")))


def readable(path: str) -> str:
    """A path, or a word of the command line, as Python gives it, without the stand-ins for bytes that are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return decoded(path.encode(errors="surrogateescape"))
    return path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path next to ``path``: it takes that name when the block ends well, else it is removed.

    What stood at ``path`` stays there until the new content is on the disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file: under a temporary name, flushed to the disk, and only then renamed.

    Raises:
        OSError: it can't be written; what stood at ``path`` stays.
    """
    with atomic_write(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            rest = memoryview(content)
            while rest:  # a write may be short
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)


def write_json(path: Path, content: object) -> None:
    """Writes a whole JSON file, as :func:`write_bytes` does."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def read_json(path: Path, kind: type[M]) -> M:
    """A JSON file that another program may have written, as far as ``kind``, a pydantic model, names its content.

    Raises:
        UserError: it can't be read, has more than 64 MiB, or is not what it should be, with a line for each of the
            first mistakes.
    """
    from pydantic import ValidationError

    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserError(f"{path} has more than {_MOST_BYTES:,} bytes")
        return kind.model_validate_json(content)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        mistakes = [(".".join(map(str, mistake["loc"])) or "content", mistake["msg"]) for mistake in error.errors()[:5]]
        lines = [f"{path} is damaged or of another format: {where}: {text}" for where, text in mistakes]
        raise UserError("\n".join(lines)) from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes an OSError of the block a :class:`hpcdd.core.errors.WriteError` about ``path``."""
    try:
        yield
    except BrokenPipeError:  # that of the standard output, for no path is a pipe
        raise
    except OSError as error:
        raise WriteError(f"{path} can't be written: {error.strerror}") from error


def digest(content: bytes) -> str:
    """SHA-256 as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_checksummed(path: Path, content: Any) -> None:
    """Writes plain data as JSON with its SHA-256; see :func:`write_bytes`."""
    text = _canonical(content)
    head = json.dumps({"sha256": digest(text.encode())})[:-1]
    write_bytes(path, f'{head}, "content": {text}}}\n'.encode())


def read_checksummed(path: Path) -> Any:
    """What :func:`write_checksummed` wrote.

    Raises:
        FileNotFoundError: it is not there.
        DamagedError: it can't be read, or is not what was written.
    """
    try:
        whole = json.loads(path.read_bytes())
        content, checksum = whole["content"], whole["sha256"]
    except FileNotFoundError:
        raise
    except (OSError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DamagedError(f"{path} is damaged ({error})") from error
    if digest(_canonical(content).encode()) != checksum:
        raise DamagedError(f"{path} is damaged (its SHA-256 does not match its content)")
    return content


def clean_up(folder: Path) -> None:
    """Removes what processes that were killed while they wrote have left in a folder under temporary names."""
    for path in folder.glob(".*.*.tmp"):
        path.unlink(missing_ok=True)


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _sync_folder(folder: Path) -> None:
    """Makes a rename last; where the file system can't (EINVAL on some), it does so of itself or not at all."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
