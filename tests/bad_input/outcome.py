"""What came of a wrong input: the exit code, what was printed, and whether anything was written or destroyed."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from pathlib import Path

from .row import Row


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with its content; what Python compiles of a user's module does not count."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


_WORD = re.compile(r"[A-Za-z][a-z]*(['-][a-z]+)*")
_REPHRASED = 1 / 3
"""Fraction of a message's plain words that may differ: enough to rephrase it, too little for another message."""


def check_message(err: str, folder: Path, row: Row) -> None:
    """Standard error says what a row's message says: to the letter its facts, in most of their words the others."""
    said = normalised(err, folder)
    assert all(line.startswith("hpcdd: ") for line in said.splitlines()), said
    check_text(said.replace("hpcdd: ", ""), row.message, row.arguments)


def check_text(said: str, expected: str, names: Collection[str] = ()) -> None:
    """One message says what another one says, see :func:`facts`."""
    stated, plain_words = facts(said, names)
    known_facts, known_words = facts(expected, names)
    assert stated == known_facts, said
    assert len(known_words - plain_words) <= _REPHRASED * len(known_words), said


def facts(text: str, names: Collection[str] = ()) -> tuple[list[str], set[str]]:
    """What a text states, in order, and the plain words in which it does.

    Facts are numbers, paths, settings, what is quoted, and any of ``names``; where a remedy begins (behind a
    semicolon), and where a line ends.

    >>> facts("c.yaml:2: local.epochs is 0, which is too little; use 1 or more")[0]
    ['c.yaml:2', 'local.epochs', '0', ';', '1', '\\n']
    """
    stated, plain_words = [], set()
    for line in text.splitlines():
        for token in line.split():
            bare = token.lstrip("(").rstrip("),.:;")
            if _WORD.fullmatch(bare) and bare not in names:
                plain_words.add(bare)
            elif bare:
                stated.append(bare)
            stated += [";"] * token.endswith(";")
        stated.append("\n")
    return stated, plain_words


def normalised(err: str, folder: Path) -> str:
    """What was printed, without what differs between machines and numbers of ranks."""
    err = err.replace(str(folder), "FOLDER").replace(f"host {socket.gethostname()}", "host HOST")
    err = re.sub(r"[\d.]+ GiB are free", "... GiB are free", err)
    err = re.sub(r"column \d+ \(char \d+\)", "column COLUMN (char CHAR)", err)
    err = re.sub(r"fingerprint \w+, not \w+", "fingerprint FINGERPRINT, not FINGERPRINT", err)
    return re.sub(r"\(rank [\d, ]+\)", "(rank 0)", err)
