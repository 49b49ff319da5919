"""Counting what a rank communicates, by phase, so that "no messages" is a measurement."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..core.names import CountedName


@dataclass
class Traffic:
    """What one rank has communicated: number of MPI calls, and payload bytes that it sent and received."""

    calls: int = 0
    bytes: int = 0


class Ledger:
    """The traffic of one rank by phase; all communicators of a job write into one.

    ``HPCDD_DEBUG_COMM=1`` prints every call.

    Attributes:
        phase_name: the phase that this rank is in.
        traffic: what this rank has communicated, by phase; a phase without a call stands at zero.
        inside: whether this rank may be waiting for others.
    """

    def __init__(self, rank: int) -> None:
        self.traffic: dict[CountedName, Traffic] = {}
        self.phase_name: CountedName = "start"
        self.inside = False
        self._rank = rank
        self._debug = os.environ.get("HPCDD_DEBUG_COMM") == "1"

    @contextlib.contextmanager
    def phase(self, name: CountedName) -> Iterator[None]:
        """Counts all traffic inside the ``with`` block under ``name``."""
        before, self.phase_name = self.phase_name, name
        self.traffic.setdefault(name, Traffic())
        yield
        self.phase_name = before  # an exception leaves the name standing, for the report of it

    @contextlib.contextmanager
    def counted(self, call: str, size: int) -> Iterator[None]:
        """Counts one MPI call, made inside the ``with`` block, with its payload in bytes under the present phase."""
        traffic = self.traffic.setdefault(self.phase_name, Traffic())
        traffic.calls += 1
        traffic.bytes += size
        start = time.perf_counter()
        with self.waiting():
            yield
        if self._debug:
            microseconds = (time.perf_counter() - start) * 1e6
            print(f"comm: rank {self._rank}: {call} {size} bytes {microseconds:.0f} us", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Marks the ``with`` block as one in which this rank may wait for others."""
        before, self.inside = self.inside, True
        try:
            yield
        finally:
            self.inside = before
