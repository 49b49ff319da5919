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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import InUseError
from ..core.files import writing

BEAT = 5.0
"""Seconds between two numbers."""
STALE_BEATS = 12
"""Beats that another host's lock must stand still to count as left behind: a file system may show it late."""
_BYTES = 512
"""Size of the file: it is overwritten in place, which needs no space on a full disk."""


class Lock:
    """Held by this process from :meth:`acquire` to :meth:`release`, or to its death.

    Args:
        path: of the file; its folder exists.
        beat: seconds, see :data:`BEAT`.
        lost: called in the lock's thread if another job has taken the lock: this one was suspended for so long that it
            counted as dead.
    """

    def __init__(self, path: Path, beat: float = BEAT, lost: Callable[[], None] = lambda: None) -> None:
        self._path, self._beat, self._lost = path, beat, lost
        self._token = secrets.token_hex(8)
        self._number = 0
        self._file = -1
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="hpcdd-lock", daemon=True)

    def acquire(self) -> str | None:
        """Takes the lock; waits some seconds only where a job on another host may hold it.

        Returns:
            Who left it behind, if it was another job's.

        Raises:
            InUseError: another job holds it.
            WriteError: it can't be written.
        """
        left = None
        with writing(self._path):
            while not self._create():
                owner = self._read()
                if owner is None:
                    continue  # it has just gone
                if self._lives(owner):
                    raise InUseError(
                        f"{self._path.parent} is in use by {_description(owner)}; wait for it to end, or name another "
                        "--output"
                    )
                self._remove(owner)
                left = _description(owner)
        self._thread.start()
        return left

    def release(self) -> None:
        """Removes the file, if it still is this process's."""
        self._end.set()
        self._thread.join()
        owner = self._read()
        if owner is not None and owner.get("token") == self._token:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._file)

    def _create(self) -> bool:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return False
        try:
            self._write()
        except OSError:
            self._path.unlink()
            raise
        return True

    def _write(self) -> None:
        content = {
            "token": self._token,
            "host": socket.gethostname(),
            "space": _process_space(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "job": os.environ.get("SLURM_JOB_ID", ""),
            "number": self._number,
        }
        os.pwrite(self._file, json.dumps(content).ljust(_BYTES).encode(), 0)
        os.fsync(self._file)  # or a file system would show it to other hosts when it likes

    def _keep(self) -> None:
        while not self._end.wait(self._beat):
            self._number += 1
            with contextlib.suppress(OSError):
                self._write()
            owner = self._read()
            if owner is not None and owner.get("token", self._token) != self._token:
                self._lost()
                return

    def _read(self) -> dict[str, Any] | None:
        """The content of the lock; None without a lock; {} where nothing can be read from it yet."""
        try:
            content = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _lives(self, owner: dict[str, Any]) -> bool:
        if owner.get("host") == socket.gethostname() and owner.get("space") == _process_space():
            started = _started(owner["pid"])
            return started is not None and started == owner["started"]
        end = time.monotonic() + STALE_BEATS * self._beat
        while time.monotonic() < end:
            time.sleep(self._beat / 5)
            if self._read() != owner:
                return self._path.exists()
        return False

    def _remove(self, owner: dict[str, Any]) -> None:
        """Takes away the lock that ``owner`` left behind, and no other that may come in its place.

        One job at a time does so, under a lock that is held for a moment.
        """
        guard = self._path.with_name(f"{self._path.name}.takeover")
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        except FileExistsError:
            end = time.monotonic() + STALE_BEATS * self._beat
            while guard.exists():
                time.sleep(self._beat / 100)
                if time.monotonic() > end:  # whoever made it has died
                    guard.unlink(missing_ok=True)
            return
        try:
            if self._read() == owner:
                self._path.unlink(missing_ok=True)
        finally:
            guard.unlink(missing_ok=True)


def _started(pid: int) -> int | None:
    """When a process was started, in clock ticks since the machine was (no step of its clock changes that); None
    without such a process, or if it is dead and only not yet reaped.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _process_space() -> str:
    """What distinguishes machines of one name, and containers that don't see each other's processes."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def _description(owner: dict[str, Any]) -> str:
    if not owner:
        return "an unknown job"
    job = f", Slurm job {owner['job']}" if owner.get("job") else ""
    return f"a job on host {owner.get('host')} (process {owner.get('pid')}{job})"
