"""One job at a time on a run directory: a lock that ends with its job, also by a crash, also on a shared file system.

The lock is a file that only one process can create (O_EXCL, which NFS keeps too). It names its owner, whose thread
writes a new number into it every few seconds. On the owner's own host the next job looks whether that process still
lives; from another host it watches the number, so that no clock is compared: if it stands still, the owner is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from .errors import UserError, WriteError

BEAT = 5.0
"""Seconds between two numbers."""
PATIENCE = 6
"""Beats that another host's lock must stand still to count as left behind."""
_BYTES = 512
"""Size of the file: it is overwritten in place, which needs no space on a full disk."""


class Lock:
    """Held by this process from :meth:`acquire` to :meth:`release`, or to its death.

    Args:
        path: of the file; its folder exists.
        beat: seconds, see :data:`BEAT`.
    """

    def __init__(self, path: Path, beat: float = BEAT) -> None:
        self._path, self._beat = path, beat
        self._token = secrets.token_hex(8)
        self._number = 0
        self._file = -1
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="hpcdd-lock", daemon=True)

    def acquire(self) -> str | None:
        """Takes the lock; waits some seconds only where a job on another host may hold it.

        Returns:
            Who left it behind, if it had to be taken over.

        Raises:
            UserError: another job holds it.
            WriteError: it can't be written.
        """
        left = None
        try:
            while not self._create():
                owner = self._read(self._path)
                if owner is None:
                    continue  # it has just gone
                if self._lives(owner):
                    raise UserError(
                        f"{self._path.parent} is in use by {_words(owner)}; wait for its end, or name another --output"
                    )
                self._remove(owner)
                left = _words(owner)
        except OSError as error:
            raise WriteError(f"{self._path} can't be written: {error.strerror}") from error
        self._thread.start()
        return left

    def release(self) -> None:
        """Removes the file, if it still is this process's."""
        self._end.set()
        self._thread.join()
        owner = self._read(self._path)
        if owner is not None and owner.get("token") == self._token:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._file)

    def _create(self) -> bool:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return False
        self._write()
        return True

    def _write(self) -> None:
        process = psutil.Process()
        content = {
            "token": self._token,
            "host": socket.gethostname(),
            "space": _process_space(),
            "pid": process.pid,
            "started": process.create_time(),
            "job": os.environ.get("SLURM_JOB_ID", ""),
            "number": self._number,
        }
        os.pwrite(self._file, json.dumps(content).ljust(_BYTES).encode(), 0)

    def _keep(self) -> None:
        while not self._end.wait(self._beat):
            self._number += 1
            with contextlib.suppress(OSError):
                self._write()

    def _read(self, path: Path) -> dict[str, Any] | None:
        """What stands in a lock; None where there is none; {} where nothing can be read from it yet."""
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _lives(self, owner: dict[str, Any]) -> bool:
        if owner.get("host") == socket.gethostname() and owner.get("space") == _process_space():
            try:
                return bool(psutil.Process(owner["pid"]).create_time() == owner["started"])
            except psutil.NoSuchProcess:
                return False
        end = time.monotonic() + PATIENCE * self._beat
        while time.monotonic() < end:
            time.sleep(self._beat / 5)
            if self._read(self._path) != owner:
                return self._path.exists()
        return False

    def _remove(self, owner: dict[str, Any]) -> None:
        """Takes away the lock that ``owner`` left behind, and no other that may have come in its place."""
        aside = self._path.with_name(f".{self._path.name}.{self._token}")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        if self._read(aside) == owner:
            aside.unlink()
            return
        with contextlib.suppress(FileExistsError):  # another job was quicker, and this is its lock
            os.link(aside, self._path)
        aside.unlink()


def _process_space() -> str:
    """What tells apart machines of one name, and containers that don't see each other's processes."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def _words(owner: dict[str, Any]) -> str:
    if not owner:
        return "an unknown job"
    job = f", Slurm job {owner['job']}" if owner.get("job") else ""
    return f"a job on host {owner.get('host')} (process {owner.get('pid')}{job})"
