"""Ranks that hang are named, and the job ends: a hung node, a device or a file system that no longer answers.

Each rank has a thread that writes a line into a file of its own every so often: a number that grows, what the rank
does, and for how long its main thread has not moved (waiting for other ranks counts as moving). The ranks stand in a
ring: each reads the file of the next. A process that is gone or stopped no longer writes; a main thread that is stuck
is reported by its own line. No message is sent, so that the local phase stays without, and no clocks are compared.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..core.errors import RESUME
from ..core.files import writing
from ..mpi.communicator import Comm
from ..mpi.runtime import set_finalize_timeout
from .run_directory import RunDirectory

_LINE = 256
"""Bytes of a line: overwritten in place, which needs no space on a full disk."""
_PARTS = 10
"""How often a rank writes within the time-out."""
_LONGEST = 15.0
"""Seconds between two lines at most."""


class Watchdog:
    """A context manager on each rank.

    Args:
        folder: for the files; it exists, on a file system that all hosts share.
        rank, size: of the job.
        timeout: seconds.
        movement: anything that changes when this rank's main thread moves, or None while it waits for others.
        activity: what this rank does, such as ``phase local, step 12``.
        end: called in the watchdog's thread with the message when a rank hangs.

    Raises:
        WriteError: on entry, if its file can't be made.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        size: int,
        timeout: float,
        movement: Callable[[], object],
        activity: Callable[[], str],
        end: Callable[[str], None],
    ) -> None:
        self._folder, self._rank, self._size, self._timeout = folder, rank, size, timeout
        self._movement, self._activity, self._end = movement, activity, end
        self._pause = min(timeout / _PARTS, _LONGEST)
        self._over = threading.Event()
        self._number = 0
        self._still = 0.0
        self._thread = threading.Thread(target=self._run, name="hpcdd-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        path = self._path(self._rank)
        with writing(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._file)
        self._path(self._rank).unlink(missing_ok=True)

    def _run(self) -> None:
        before, seen, unseen = self._movement(), "", 0.0
        last = time.monotonic()
        while not self._over.wait(self._pause):
            now = time.monotonic()
            # If this very process was stopped for a while, that says nothing about the others.
            passed, last = min(now - last, 2 * self._pause), now
            present = self._movement()
            self._still = self._still + passed if present is not None and present == before else 0.0
            before = present
            if not self._write():
                unseen = 0.0  # maybe nobody can write
                continue
            line = self._read((self._rank + 1) % self._size)
            unseen = unseen + passed if line is not None and line == seen else 0.0
            seen = line or ""
            if max(self._still, unseen) >= self._timeout:
                self._report()
                self._still, unseen = 0.0, 0.0  # every rank moves by now

    def _report(self) -> None:
        """Looks at all ranks, so that of several that hang all are named; of several watchdogs one reports."""
        stalled = self._folder / "stalled"
        try:
            os.close(os.open(stalled, os.O_CREAT | os.O_EXCL))
        except OSError:
            self._over.wait(10 * self._pause)
            if stalled.exists() and not self._over.is_set():
                self._end("")
            return
        first = {rank: self._read(rank) for rank in range(self._size)}
        for _ in range(3):
            self._write()
            time.sleep(self._pause)
        hung = []
        for rank, line in first.items():
            if line is None:
                continue
            _, still, description = line.split("|", 2)
            if rank != self._rank and self._read(rank) == line:
                hung.append(f"rank {rank} of {self._size} on {description.strip()} does not respond")
            elif float(still) + 3 * self._pause >= self._timeout:
                hung.append(f"rank {rank} of {self._size} on {description.strip()} makes no progress")
        if hung:
            self._end("\n".join(f"{text} (run.stall_timeout is {self._timeout:g} s)" for text in hung))
        else:
            stalled.unlink(missing_ok=True)

    def _write(self) -> bool:
        self._number += 1
        line = f"{self._number}|{self._still:.2f}|{socket.gethostname()}, {self._activity()}"
        try:
            os.pwrite(self._file, line[:_LINE].ljust(_LINE).encode(), 0)
            os.fsync(self._file)  # or a file system would show it to other hosts when it likes
        except OSError:
            return False
        return True

    def _read(self, rank: int) -> str | None:
        """The line of a rank; None before it has begun, and after it has ended."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            line = self._path(rank).read_text("utf-8")
            return line if line.count("|") >= 2 else None
        return None

    def _path(self, rank: int) -> Path:
        return self._folder / f"rank-{rank:04d}"


@contextlib.contextmanager
def watched(
    comm: Comm,
    directory: RunDirectory,
    timeout: float,
    movement: Callable[[], object],
    activity: Callable[[], str],
    log: logging.Logger,
    remedy: str,
) -> Iterator[None]:
    """In the block, and while MPI ends after it, a rank that hangs ends the job; collective.

    Args:
        comm: all ranks.
        directory: of the run.
        timeout, movement, activity: see :class:`Watchdog`.
        log: of this rank.
        remedy: what to do then, in words.
    """

    def end(text: str) -> None:  # the main thread may hang within MPI
        if text:
            for line in text.splitlines():
                log.error("%s", line)
            more = f"the job ends; {remedy}"
            sys.stderr.write("".join(f"hpcdd: {line}\n" for line in [*text.splitlines(), more]))
            sys.stderr.flush()
            time.sleep(0.5)  # as in hpcdd.mpi.failure: mpirun may end before it has passed on what was printed last
        comm.abort(RESUME)

    watchdog = Watchdog(
        directory.heartbeats,
        comm.rank,
        comm.size,
        timeout,
        lambda: None if comm.ledger.inside else movement(),
        lambda: f"phase {comm.phase_name}, {activity()}",
        end,
    )
    with contextlib.ExitStack() as stack:
        comm.on_all(lambda: stack.enter_context(watchdog))
        set_finalize_timeout(timeout, f"another rank hangs while it ends; {directory.path} is closed", RESUME)
        yield
