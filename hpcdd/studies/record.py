"""The file of a scaling study: one JSON object per line, appended to; what is in it is not measured again."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import writing

FORMAT = 1
Line = dict[str, Any]
Key = tuple[str, str, int, int]
"""Series (see :func:`hpcdd.studies.scale.series`), phase, ranks, repeat."""

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "series": str,
    "phase": str,
    "ranks": int,
    "repeat": int,
    "seconds": (int, float),
    "steps": list,
}


def key(line: Line) -> Key:
    """What tells one measurement from all others."""
    return line["series"], line["phase"], line["ranks"], line["repeat"]


def read(path: Path) -> list[Line]:
    """All lines of a file; a last one that a killed job has left half written is not one.

    Raises:
        UserError: it can't be read, or a line is no measurement.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} can't be read: {error.strerror}; name a file that `hpcdd scale` has written"
        ) from error
    return list(_parse(path, content))


def append(path: Path, line: Line) -> None:
    """Adds one line, which is on the disk afterwards; half of one that a killed job has left there goes.

    Raises:
        WriteError: it can't be written.
    """
    text = json.dumps(line, allow_nan=False).encode() + b"\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another job may append to the same file; closing gives it free
            file.seek(0)
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def _parse(path: Path, content: bytes) -> Iterator[Line]:
    *whole, _ = content.split(b"\n")
    for number, text in enumerate(whole, start=1):
        wrong = f"{path}:{number} is no measurement of `hpcdd scale`"
        try:
            line = json.loads(text)
        except ValueError as error:
            raise UserError(f"{wrong}: {error}; take the line out, or name another file") from error
        if not isinstance(line, dict) or line.get("hpcdd_scaling") != FORMAT:
            raise UserError(f"{wrong} of format {FORMAT}; name another file")
        for name, kind in _FIELDS.items():
            if not isinstance(line.get(name), kind):
                raise UserError(f"{wrong}: its field {name!r} is missing or of a wrong kind; take the line out")
        yield line
