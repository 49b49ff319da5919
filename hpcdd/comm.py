"""The one place that imports mpi4py: a duplicate of COMM_WORLD, collectives on numpy buffers, and their count.

Arrays travel by upper-case (buffer) calls, small metadata as pickled bytes through the same calls. Whoever waits
for a rank that works long (root's aggregation, the slowest local CNN) sleeps between tests of a nonblocking
call, so that a core which that rank needs is not burnt by spinning. ``HPCDD_DEBUG_COMM=1`` prints every call.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import launch
from .errors import UserError

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")
Array = npt.NDArray[Any]

ROOT = 0
_LARGEST_MESSAGE = 1 << 30  # bytes; keeps every count far below 2**31


@dataclass
class Traffic:
    """What one rank has communicated: number of MPI calls, and payload bytes that it sent and received."""

    calls: int = 0
    bytes: int = 0


class Comm:
    """A communicator whose traffic is counted by phase.

    Attributes:
        mpi: the mpi4py communicator, hpcdd's own.
        rank: number of this process, 0 <= rank < size; rank 0 is root.
        size: number of processes.
        phase_name: the phase that this rank is in.
        traffic: what this rank has communicated, by phase; a phase without a call stands at zero.
    """

    def __init__(self, mpi: MPI.Comm) -> None:
        self.mpi = mpi
        self.rank = mpi.Get_rank()
        self.size = mpi.Get_size()
        self.traffic: dict[str, Traffic] = {}
        self.phase_name = "start"
        self._debug = os.environ.get("HPCDD_DEBUG_COMM") == "1"

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == ROOT

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts all traffic inside the ``with`` block under ``name``."""
        before, self.phase_name = self.phase_name, name
        self.traffic.setdefault(name, Traffic())
        yield
        self.phase_name = before  # an exception leaves the name standing, for the report of it

    # -- agreement ---------------------------------------------------------------------------------------------------

    def on_root(self, work: Callable[[], T]) -> T:
        """Runs ``work`` on root; every rank gets its (pickled) result, or the same :class:`UserError`."""
        outcome: tuple[T | None, str | None] = (None, None)
        if self.is_root:
            try:
                outcome = (work(), None)
            except UserError as error:
                outcome = (None, str(error))
        result, problem = self.broadcast_object(outcome)
        if problem is not None:
            raise UserError(problem)
        return cast(T, result)  # without a problem it is work's

    def on_all(self, work: Callable[[], T]) -> T:
        """Runs ``work`` on every rank; each gets its own result, or all get one UserError that names the ranks."""
        result, problem = None, None
        try:
            result = work()
        except UserError as error:
            problem = str(error)
        problems = self.allgather_object(problem)
        ranks: dict[str, list[int]] = {}
        for rank, text in enumerate(problems):
            if text is not None:
                ranks.setdefault(text, []).append(rank)
        if ranks:
            raise UserError("\n".join(f"{text} (rank {', '.join(map(str, who))})" for text, who in ranks.items()))
        return cast(T, result)

    def maximum(self, value: int, poll: Callable[[], None] = lambda: None) -> int:
        """The largest ``value`` of all ranks, on every rank; ranks that come early sleep and call ``poll``."""
        mine, largest = np.array([value], np.int64), np.zeros(1, np.int64)
        with self.counted("Iallreduce", 2 * mine.nbytes):
            sleep_until(self.mpi.Iallreduce(mine, largest, op=_mpi().MAX).Test, poll)
        return int(largest[0])

    # -- small metadata ----------------------------------------------------------------------------------------------

    def broadcast_object(self, value: T, root: int = ROOT) -> T:
        """Root's ``value`` (pickled) on every rank; the others sleep until root is there."""
        payload = pickle.dumps(value) if self.rank == root else b""
        size = np.array([len(payload)], np.int64)
        with self.counted("Ibcast", size.nbytes):
            sleep_until(self.mpi.Ibcast(size, root=root).Test)
        buffer = np.frombuffer(payload, np.uint8) if self.rank == root else np.empty(int(size[0]), np.uint8)
        with self.counted("Bcast", buffer.nbytes):
            self.mpi.Bcast(buffer, root=root)
        return value if self.rank == root else pickle.loads(buffer.tobytes())

    def gather_object(self, value: T) -> list[T] | None:
        """The ``value`` (pickled) of every rank in rank order on root, None elsewhere."""
        payload = np.frombuffer(pickle.dumps(value), np.uint8)
        sizes = self.gather(np.array([payload.size], np.int64), [1] * self.size)
        counts = [0] * self.size if sizes is None else [int(n) for n in sizes]
        parts = self.gather(payload, counts)
        if parts is None:
            return None
        ends = np.cumsum([0, *counts])
        return [pickle.loads(parts[a:b].tobytes()) for a, b in itertools.pairwise(ends)]

    def allgather_object(self, value: T) -> list[T]:
        """The ``value`` (pickled) of every rank in rank order, on every rank."""
        return self.broadcast_object(self.gather_object(value) or [])

    # -- arrays ------------------------------------------------------------------------------------------------------

    def gather(self, part: Array, counts: Sequence[int]) -> Array | None:
        """Gatherv of contiguous arrays of one dtype to root.

        Args:
            part: this rank's array, ``counts[rank]`` elements (zero is fine).
            counts: elements of every rank in rank order; read on root only.

        Returns:
            On root a flat array of ``sum(counts)`` elements in rank order; None elsewhere.
        """
        part = np.ascontiguousarray(part).reshape(-1)
        if not self.is_root:
            with self.counted("Gatherv", part.nbytes):
                self.mpi.Gatherv(part, None, root=ROOT)
            return None
        whole = np.empty(sum(counts), part.dtype)
        with self.counted("Gatherv", whole.nbytes - part.nbytes):
            self.mpi.Gatherv(part, [whole, list(counts)], root=ROOT)
        return whole

    def to_root(self, array: Array, source: int) -> None:
        """Moves ``array`` (contiguous, any size) from rank ``source`` into root's array of the same shape and dtype.

        To be called by root and by ``source``; where they are one rank nothing is done.
        """
        flat = array.reshape(-1).view(np.uint8)
        if source == ROOT or self.rank not in (ROOT, source):
            return
        for start in range(0, flat.size, _LARGEST_MESSAGE):
            piece = flat[start : start + _LARGEST_MESSAGE]
            if self.is_root:
                with self.counted("Recv", piece.nbytes):
                    self.mpi.Recv(piece, source=source)
            else:
                with self.counted("Send", piece.nbytes):
                    self.mpi.Send(piece, dest=ROOT)

    def receive_bytes(self, channel: MPI.Comm, tag: int) -> npt.NDArray[np.uint8]:
        """The next message with ``tag`` from any rank on a side channel, however long; it is known to be there."""
        about = _mpi().Status()
        channel.Probe(tag=tag, status=about)
        buffer = np.empty(about.Get_count(_mpi().BYTE), np.uint8)
        with self.counted("Recv", buffer.nbytes):
            channel.Recv(buffer, source=about.Get_source(), tag=tag)
        return buffer

    # -- the job -----------------------------------------------------------------------------------------------------

    def node_ranks(self) -> list[int]:
        """The ranks on this rank's host (those that share its memory), in rank order, this one included."""
        with self.counted("Split_type", 0):
            node = self.mpi.Split_type(_mpi().COMM_TYPE_SHARED, key=self.rank)
        with self.counted("allgather", 8 * node.Get_size()):
            ranks: list[int] = node.allgather(self.rank)
        node.Free()
        return ranks

    def side_channel(self) -> MPI.Comm:
        """One more duplicate, for messages that must never meet those of a phase (telemetry, requests to stop)."""
        return self.mpi.Dup()

    def abort(self, exit_code: int) -> None:
        """Ends all ranks of the job at once; does not return."""
        sys.stdout.flush()
        sys.stderr.flush()
        _mpi().COMM_WORLD.Abort(exit_code)

    @contextlib.contextmanager
    def counted(self, call: str, size: int) -> Iterator[None]:
        """Counts one MPI call, made inside the ``with`` block, with its payload in bytes under the present phase."""
        traffic = self.traffic.setdefault(self.phase_name, Traffic())
        traffic.calls += 1
        traffic.bytes += size
        start = time.perf_counter()
        yield
        if self._debug:
            microseconds = (time.perf_counter() - start) * 1e6
            print(f"comm: rank {self.rank}: {call} {size} bytes {microseconds:.0f} us", file=sys.stderr, flush=True)


def world() -> Comm:
    """Starts MPI and returns a duplicate of COMM_WORLD; collective.

    Raises:
        UserError: no MPI library, or one that does not fit the launcher.
    """
    MPI = _mpi()
    launched, version = launch.from_environment(), MPI.Get_library_version()
    launch.check_library(launched, version)
    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_FUNNELED)
        atexit.register(MPI.Finalize)
    launch.check_size(launched, version, MPI.COMM_WORLD.Get_size())
    return Comm(MPI.COMM_WORLD.Dup())


def mpi_library() -> str:
    """First line of what the MPI library says of itself.

    Raises:
        UserError: no MPI library.
    """
    return str(_mpi().Get_library_version()).rstrip("\0").strip().splitlines()[0]


def _mpi() -> Any:
    """The module mpi4py.MPI, not initialised by its import, so that a wrong launcher can be refused beforehand."""
    import mpi4py

    mpi4py.rc.initialize = False
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"mpi4py finds no MPI library ({str(error).splitlines()[0]}); load your site's MPI module, "
            "or install one with `pip install 'hpcdd[mpi]'`"
        ) from error
    return MPI


def sleep_until(done: Callable[[], bool], poll: Callable[[], None] = lambda: None) -> None:
    """Waits until ``done`` (a request's ``Test``, say) and sleeps between tests, 50 us at first, 10 ms at most."""
    pause = 50e-6
    while not done():
        poll()
        time.sleep(pause)
        pause = min(2 * pause, 10e-3)
