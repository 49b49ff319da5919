"""What came of a wrong input: the exit code, what was printed, and whether anything was written or destroyed."""

from __future__ import annotations

import re
import socket
from pathlib import Path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with its content; what Python compiles of a user's module does not count."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def printed(message: str) -> str:
    """A row's message as it is printed."""
    return "".join(f"hpcdd: {line}\n" for line in message.splitlines())


def normalised(err: str, folder: Path) -> str:
    """What was printed, without what differs between machines and numbers of ranks."""
    err = err.replace(str(folder), "FOLDER").replace(f"host {socket.gethostname()}", "host HOST")
    err = re.sub(r"[\d.]+ GiB are free", "... GiB are free", err)
    err = re.sub(r"column \d+ \(char \d+\)", "column COLUMN (char CHAR)", err)
    err = re.sub(r"fingerprint \w+, not \w+", "fingerprint FINGERPRINT, not FINGERPRINT", err)
    return re.sub(r"\(rank [\d, ]+\)", "(rank 0)", err)
