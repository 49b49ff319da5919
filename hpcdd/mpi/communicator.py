"""A duplicate of COMM_WORLD, collectives on numpy buffers, and their count.

Arrays are sent by upper-case (buffer) calls, small metadata as pickled bytes through the same calls. A rank that waits
for one that works long (root's aggregation, the slowest local CNN) sleeps between tests of a nonblocking call, so
that it does not take a core from that rank by spinning.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..core.environment import ColocatedRanks, Startup
from ..core.errors import UserError, agreed
from ..core.names import CountedName
from . import launcher
from .runtime import abort, finalize, library, mpi_library, sleep_until
from .traffic import Ledger, Traffic

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")
Array = npt.NDArray[Any]

ROOT = 0
_LARGEST_MESSAGE = 1 << 30  # bytes; keeps every count far below 2**31
_STEP_PAUSE = 200e-6  # seconds; longest pause of a rank that waits for the others within a training step


class Comm:
    """A communicator whose traffic is counted by phase.

    Attributes:
        mpi: the mpi4py communicator, hpcdd's own.
        rank: number of this process, 0 <= rank < size; rank 0 is root.
        size: number of processes.
        ledger: counts the traffic; communicators that were split off write into the same one.
        oversubscribed: whether more threads than cores work on a host, so that waiting within a step must not spin.
        family: every communicator of the job that this rank belongs to.
        diminished: whether ranks have been lost and the others continue, see :mod:`hpcdd.mpi.fault_tolerance`.
        startup: where the time before this rank's first step goes.
        colocated: what else works on this rank's host.
    """

    def __init__(
        self,
        mpi: MPI.Comm,
        *,
        ledger: Ledger | None = None,
        oversubscribed: bool = True,
        family: list[MPI.Comm] | None = None,
        startup: Startup | None = None,
        colocated: ColocatedRanks | None = None,
    ) -> None:
        self.mpi, self.rank, self.size = mpi, mpi.Get_rank(), mpi.Get_size()
        self.ledger = ledger or Ledger(self.rank)
        self.oversubscribed = oversubscribed
        self.family = [] if family is None else family
        self.family.append(mpi)
        self.diminished = False
        self.startup, self.colocated = startup or Startup(), colocated or ColocatedRanks()

    def revoke(self) -> None:
        """Revokes every communicator of the job, in fault-tolerant mode: a rank that waits in one gets an error."""
        for mpi in self.family:
            with contextlib.suppress(Exception):  # it is revoked already, or of ranks that are gone
                mpi.Revoke()

    def become(self, mpi: MPI.Comm) -> None:
        """Replaces the communicator by that of the surviving ranks; what was split off before is void."""
        self.mpi, self.rank, self.size = mpi, mpi.Get_rank(), mpi.Get_size()
        self.ledger = Ledger(self.rank)
        self.family[:] = [mpi]
        self.diminished = True

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == ROOT

    @property
    def traffic(self) -> dict[CountedName, Traffic]:
        """What this rank has communicated, by phase."""
        return self.ledger.traffic

    @property
    def phase_name(self) -> CountedName:
        """The phase that this rank is in."""
        return self.ledger.phase_name

    def phase(self, name: CountedName) -> contextlib.AbstractContextManager[None]:
        """Counts all traffic inside the ``with`` block under ``name``."""
        return self.ledger.phase(name)

    def counted(self, call: str, size: int) -> contextlib.AbstractContextManager[None]:
        """Counts one MPI call, made inside the ``with`` block, with its payload in bytes under the present phase."""
        return self.ledger.counted(call, size)

    def split(self, color: int | None, colocated: ColocatedRanks | None = None) -> Self | None:
        """Collective: a communicator of the ranks that name the same ``color``, in rank order; None for color None.

        Args:
            color: of this rank.
            colocated: what else will work on this rank's host; default: nothing.
        """
        with self.counted("Split", 0):
            mpi = self.mpi.Split(library().UNDEFINED if color is None else color, self.rank)
        if color is None:
            return None
        return type(self)(
            mpi, ledger=self.ledger, oversubscribed=self.oversubscribed, family=self.family, colocated=colocated
        )

    def duplicate(self, ledger: Ledger | None = None) -> Self:
        """Collective: the same ranks, with clocks and counters that begin now; for one of several runs.

        Args:
            ledger: counts its traffic; default: a new one.
        """
        made = type(self)(self.mpi.Dup(), ledger=ledger, colocated=self.colocated)
        made.restart_clock()
        return made

    def restart_clock(self) -> None:
        """From now on the time before this rank's first step counts anew."""
        self.startup = Startup(from_now=True)

    def agree_oversubscribed(self, oversubscribed: bool) -> None:
        """Collective: no rank spins within a step from now on if any host is ``oversubscribed``, else all do."""
        self.oversubscribed = self.maximum(oversubscribed) > 0

    def free(self) -> None:
        """Collective: gives back this communicator and all that were split off; an MPI library has a limited number."""
        for mpi in self.family:
            mpi.Free()

    # -- agreement ---------------------------------------------------------------------------------------------------

    def on_root(self, work: Callable[[], T]) -> T:
        """Runs ``work`` on root; every rank gets its (pickled) result, or the same :class:`UserError`."""
        outcome: tuple[T | None, UserError | None] = (None, None)
        if self.is_root:
            try:
                outcome = (work(), None)
            except UserError as error:
                outcome = (None, type(error)(str(error)))
        result, problem = self.broadcast_object(outcome)
        if problem is not None:
            problem.agreed = self.size
            raise problem
        return cast(T, result)  # without a problem it is work's

    def refuse(self, error: UserError | None) -> None:
        """Raises root's ``error`` on every rank; does nothing where root has none."""

        def work() -> None:
            if error is not None:
                raise error

        self.on_root(work)

    def on_all(self, work: Callable[[], T]) -> T:
        """Runs ``work`` on every rank; each gets its own result, or all get one UserError that names the ranks."""
        result, problem = None, None
        try:
            result = work()
        except UserError as error:
            problem = type(error), str(error), error.agreed > 0
        if combined := agreed(self.allgather_object(problem)):
            raise combined
        return cast(T, result)

    def maximum(self, value: int, poll: Callable[[], None] = lambda: None) -> int:
        """The largest ``value`` of all ranks, on every rank; early ranks sleep between calls of ``poll``."""
        mine, largest = np.array([value], np.int64), np.zeros(1, np.int64)
        with self.counted("Iallreduce", 2 * mine.nbytes):
            sleep_until(self.mpi.Iallreduce(mine, largest, op=library().MAX).Test, poll)
        return int(largest[0])

    # -- small metadata ----------------------------------------------------------------------------------------------

    def broadcast_object(self, value: T, root: int = ROOT) -> T:
        """Root's ``value`` (pickled) on every rank; the others wait for root without spinning."""
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
        size, sizes = np.array([payload.size], np.int64), np.empty(self.size, np.int64)
        with self.counted("Iallgather", sizes.nbytes):
            sleep_until(self.mpi.Iallgather(size, sizes).Test)
        counts = sizes.tolist()
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
            counts: elements of every rank in rank order, the same on every rank.

        Returns:
            On root a flat array of ``sum(counts)`` elements in rank order; None elsewhere.
        """
        part = np.ascontiguousarray(part).reshape(-1)
        whole = np.empty(sum(counts), part.dtype) if self.is_root else None
        for window, part_slice, inside in _windows(counts, self.rank, part.itemsize):
            chunk = part[part_slice]
            size = chunk.nbytes if whole is None else whole[window].nbytes - chunk.nbytes
            with self.counted("Gatherv", size):
                self.mpi.Gatherv(chunk, None if whole is None else [whole[window], inside], root=ROOT)
        return whole

    def sum(self, values: Any, result: Any) -> None:
        """Allreduce: ``result`` becomes the sum of all ranks' ``values``, on every rank.

        Both are contiguous and of one shape and dtype: arrays of numpy, or tensors, which may be a GPU's memory. On an
        oversubscribed host early ranks don't spin, except for tensors: MPI adds on a GPU in blocking calls only.
        """
        if self.oversubscribed and isinstance(values, np.ndarray):
            self.finish_sum(self.start_sum(values, result))
            return
        with self.counted("Allreduce", 2 * values.nbytes):
            self.mpi.Allreduce(values, result)

    def start_sum(self, values: Array, result: Array) -> MPI.Request:
        """As :meth:`sum`, but only started: neither array may be accessed until :meth:`finish_sum`."""
        with self.counted("Iallreduce", 2 * values.nbytes):
            return self.mpi.Iallreduce(values, result)

    def finish_sum(self, request: MPI.Request) -> None:
        """Waits for what :meth:`start_sum` has started."""
        with self.ledger.waiting():
            if self.oversubscribed:
                sleep_until(request.Test, longest=_STEP_PAUSE)
            else:
                request.Wait()

    def allgather(self, part: Any, whole: Any) -> None:
        """Allgather: every rank's ``part`` into ``whole``, (size, *part.shape), in rank order; as in :meth:`sum`."""
        with self.counted("Allgather", whole.nbytes):
            if self.oversubscribed and isinstance(part, np.ndarray):
                sleep_until(self.mpi.Iallgather(part, whole).Test, longest=_STEP_PAUSE)
            else:
                self.mpi.Allgather(part, whole)

    def broadcast(self, array: Array, root: int = ROOT) -> None:
        """Root's contiguous ``array`` into the array of the same shape and dtype on every other rank."""
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _LARGEST_MESSAGE):
            chunk = flat[start : start + _LARGEST_MESSAGE]
            with self.counted("Ibcast", chunk.nbytes):
                sleep_until(self.mpi.Ibcast(chunk, root=root).Test)

    def scatter(self, whole: Array | None, part: Array, counts: Sequence[int]) -> None:
        """Scatterv: ``counts[r]`` elements of root's flat ``whole`` (None elsewhere) into rank r's flat ``part``."""
        for window, part_slice, inside in _windows(counts, self.rank, part.itemsize):
            chunk = part[part_slice]
            message = None if whole is None else [whole[window], inside]
            with self.counted("Scatterv", chunk.nbytes if whole is None else whole[window].nbytes):
                sleep_until(self.mpi.Iscatterv(message, chunk, root=ROOT).Test)

    def to_root(self, array: Array, source: int) -> None:
        """Moves ``array`` (contiguous, any size) from rank ``source`` into root's array of the same shape and dtype.

        To be called by root and by ``source``; where they are one rank nothing is done.
        """
        flat = array.reshape(-1).view(np.uint8)
        if source == ROOT or self.rank not in (ROOT, source):
            return
        for start in range(0, flat.size, _LARGEST_MESSAGE):
            chunk = flat[start : start + _LARGEST_MESSAGE]
            if self.is_root:
                with self.counted("Recv", chunk.nbytes):
                    self.mpi.Recv(chunk, source=source)
            else:
                with self.counted("Send", chunk.nbytes):
                    self.mpi.Send(chunk, dest=ROOT)

    # -- the job -----------------------------------------------------------------------------------------------------

    def node_ranks(self) -> list[int]:
        """The ranks on this rank's host (those that share its memory), in rank order, this one included."""
        with self.counted("Split_type", 0):
            node = self.mpi.Split_type(library().COMM_TYPE_SHARED, key=self.rank)
        with self.counted("allgather", 8 * node.Get_size()):
            ranks: list[int] = node.allgather(self.rank)
        node.Free()
        return ranks

    def side_channel(self) -> MPI.Comm:
        """One more duplicate, for messages that must never meet those of a phase (telemetry, requests to stop)."""
        self.family.append(self.mpi.Dup())
        return self.family[-1]

    def abort(self, exit_code: int) -> None:
        """Ends all ranks of the job at once; does not return."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        abort(exit_code, self.revoke)


def _windows(counts: Sequence[int], rank: int, itemsize: int) -> Iterator[tuple[slice, slice, list[int]]]:
    """Cuts an array that lies on all ranks into windows of at most :data:`_LARGEST_MESSAGE` bytes.

    So that counts, displacements and bytes of a call stay far below 2**31, which is where MPI-3 libraries end.

    Yields:
        Of each window its place in the whole array, the place of what a rank has of it in that rank's part, and how
        many elements of it every rank has.
    """
    ends = np.cumsum([0, *counts])
    for start in range(0, int(ends[-1]), max(1, _LARGEST_MESSAGE // itemsize)):
        inside = np.clip(ends, start, start + max(1, _LARGEST_MESSAGE // itemsize))
        a, b = (int(inside[k] - ends[rank]) for k in (rank, rank + 1))
        yield slice(int(inside[0]), int(inside[-1])), slice(a, b), np.diff(inside).tolist()


def world() -> Comm:
    """Starts MPI and returns a duplicate of COMM_WORLD; collective.

    Raises:
        UserError: no MPI library, one that does not fit the launcher, or too little shared memory for it.
    """
    startup = Startup()
    startup.mark("interpreter")
    MPI = library()
    launched, version = launcher.from_environment(), MPI.Get_library_version()
    launcher.check_library(launched, version)
    if not MPI.Is_initialized():
        launcher.choose_network(launched, version)
        if fault := launcher.shared_memory_fault(version, launched.local_size):
            raise UserError(fault)
        MPI.Init_thread(MPI.THREAD_SERIALIZED)
        atexit.register(launcher.ignore, launcher.SIGNALS)  # after what is registered later
        atexit.register(finalize)
    launcher.check_size(launched, version, MPI.COMM_WORLD.Get_size())
    comm = duplicate_of(MPI.COMM_WORLD, startup)
    startup.mark("mpi")
    return comm


def duplicate_of(mpi: MPI.Comm, startup: Startup | None = None) -> Comm:
    """A duplicate of a communicator, so that its messages can't meet the caller's; collective.

    Args:
        mpi: the caller's.
        startup: where this rank's time so far went.

    Raises:
        UserError: the MPI library allows only one thread to communicate.
    """
    level, needed = library().Query_thread(), library().THREAD_SERIALIZED
    if level < needed:  # on a GPU gradients are ready in a thread of torch's
        raise UserError(
            f"{mpi_library()} allows only one thread to communicate (thread level {level}); hpcdd needs "
            f"MPI_THREAD_SERIALIZED ({needed}); use an MPI library built with thread support"
        )
    return Comm(mpi.Dup(), startup=startup)
