"""One training's checkpoints as the training sees them: when one is due, who writes what, which one to resume from."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path

from ...config.sections import CheckpointSettings
from ...core.errors import DamagedError
from ...core.names import TrainingName
from ...core.seeding import WHOLE
from ...mpi.communicator import Comm
from ...mpi.traffic import Ledger, Traffic
from .snapshot import Position, Snapshot
from .store import CheckpointStore, PartEntry


@dataclass
class TrainingCosts:
    """What a training has cost so far: numbers that add up over the jobs of a run.

    Attributes:
        seconds: of wall time.
        core_seconds: of CPU time, of all its ranks.
        calls, bytes: MPI calls and payload of the rank that has most.
        steps: of the training.
    """

    seconds: float = 0.0
    core_seconds: float = 0.0
    calls: int = 0
    bytes: int = 0
    steps: int = 0

    def __add__(self, other: TrainingCosts) -> TrainingCosts:
        return TrainingCosts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: TrainingCosts) -> TrainingCosts:
        return TrainingCosts(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass
class CheckpointStats:
    """What the managers of a rank have to say, what they have cost, and what earlier jobs have.

    Attributes:
        warn: takes what the user should know.
        seconds: for reading and writing checkpoints, so far.
        earlier: by phase and subdomain (``WHOLE`` for a network of all), what the trainings whose checkpoints this rank
            leads had cost in earlier jobs.
    """

    warn: Callable[[str], None]
    seconds: float = 0.0
    earlier: dict[tuple[TrainingName, int], TrainingCosts] = field(default_factory=dict)


class NullCheckpointManager:
    """Keeps nothing."""

    @property
    def alone(self) -> bool:
        """Whether this rank can save by itself."""
        return False

    def load(self) -> Snapshot | None:
        """Nothing to resume from."""
        return None

    def overdue(self) -> bool:
        """Never."""
        return False

    def due(self, _epochs: int) -> bool:
        """Never."""
        return False

    def count(self, fraction: float) -> None:
        """Does nothing."""

    def save(self, snapshot: Callable[[], Snapshot], steps: int) -> None:
        """Does nothing."""


class CheckpointManager(NullCheckpointManager):
    """Keeps one training.

    Args:
        folder: of its checkpoints.
        run: identity of the run.
        settings: how often.
        stats: of this rank.
        phase: name of the training's phase.
        ledger: of this rank's messages.
        comm: ranks that have parts of the network, or copies of it, whose root writes the manifest; None for a
            training without messages. :meth:`load` and :meth:`save` are collective over them.
        subdomain_of: the subdomain to which a tensor belongs, by its name.
        writes: subdomains whose parts this rank writes, ``WHOLE`` for what belongs to all.
        reads: those that it needs to resume; the first one's facts count.
    """

    def __init__(
        self,
        folder: Path,
        run: str,
        settings: CheckpointSettings,
        stats: CheckpointStats,
        *,
        phase: TrainingName,
        ledger: Ledger,
        comm: Comm | None,
        subdomain_of: Callable[[str], int] = lambda _: WHOLE,
        writes: Sequence[int] = (WHOLE,),
        reads: Sequence[int] = (WHOLE,),
    ) -> None:
        self._store, self._settings, self._stats = CheckpointStore(folder, run), settings, stats
        self._phase, self._ledger = phase, ledger
        self._comm = comm if comm is not None and comm.size > 1 else None
        self._subdomain_of, self._writes, self._reads = subdomain_of, writes, reads
        self._last: Position | None = None  # that was saved, or tried
        self._whole: Position | None = None
        self._last_time = time.monotonic()
        self._earlier = self._spent = TrainingCosts()
        self._fraction, self._begin = 1.0, self._now()

    @property
    def leads(self) -> bool:
        """Whether this rank writes manifests, and its clock counts; of ranks that only read none does."""
        return bool(self._writes) and (self._comm is None or self._comm.is_root)

    @property
    def alone(self) -> bool:
        """See :class:`NullCheckpointManager`."""
        return self._comm is None

    def overdue(self) -> bool:
        """Whether it is time for a checkpoint by this rank's clock; the leader's counts."""
        minutes = self._settings.minutes
        return self.leads and minutes is not None and time.monotonic() - self._last_time >= 60 * minutes

    def due(self, epochs: int) -> bool:
        """Whether a checkpoint is due at the end of that many epochs; the same on all ranks."""
        return self._settings.epochs is not None and epochs % self._settings.epochs == 0

    def count(self, fraction: float) -> None:
        """From now on ``fraction`` of what this rank's clocks show is spent on this training; 1 to begin with."""
        self._spent, self._begin, self._fraction = self._so_far(), self._now(), fraction

    def load(self) -> Snapshot | None:
        """The newest snapshot that is whole on all ranks; what is damaged is reported, and the one before taken.

        Returns:
            What this rank reads of it; None where there is none.
        """
        with self._measured():
            problems: list[str] = []
            snapshot = None
            for position in self._agreed(self._store.positions()):
                snapshot = self._read(position, problems)
                if snapshot is not None:
                    break
            if problems and self.leads:
                then = f"resumes from {_words(snapshot.position)}" if snapshot else "is trained from the beginning"
                self._stats.warn(f"{'; '.join(problems)}: phase {self._phase} {then}")
            self._last = self._whole = None if snapshot is None else snapshot.position
        return snapshot

    def save(self, snapshot: Callable[[], Snapshot], steps: int) -> None:
        """Writes the present state, unless the last checkpoint is of the same position.

        A checkpoint that can't be written is reported and does not end the training: those before are whole.

        Args:
            snapshot: makes it.
            steps: of the training in this job.
        """
        with self._measured():
            present = snapshot()
            if present.position != self._last:
                self._last = present.position
                if problem := self._write(present, replace(self._so_far(), steps=steps)):
                    self._stats.warn(f"a checkpoint in {self._store.folder} can't be written: {problem}")
        self._last_time = time.monotonic()

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        start = time.perf_counter()
        with self._ledger.phase("checkpoint"):
            yield
        self._stats.seconds += time.perf_counter() - start

    def _now(self) -> TrainingCosts:
        """The clocks and counters of this rank, as costs."""
        traffic = self._ledger.traffic.get(self._phase, Traffic())
        return TrainingCosts(time.perf_counter(), time.process_time(), traffic.calls, traffic.bytes)

    def _so_far(self) -> TrainingCosts:
        """What this training has cost in this job."""
        more = self._now() - self._begin
        seconds, worked = self._fraction * more.seconds, self._fraction * more.core_seconds
        return self._spent + replace(more, seconds=seconds, core_seconds=worked)

    def _agreed(self, positions: list[Position]) -> list[Position]:
        """Those that root sees: a shared file system may not show all ranks the same at the same moment."""
        return positions if self._comm is None else self._comm.broadcast_object(positions)

    def _read(self, position: Position, problems: list[str]) -> Snapshot | None:
        snapshot, problem, costs = None, None, TrainingCosts()
        try:
            manifest = self._store.manifest(position)
            snapshot, costs = Snapshot.join(self._store.read(manifest, self._reads)), TrainingCosts(**manifest["costs"])
        except DamagedError as error:
            problem = str(error)
        everyone = [problem] if self._comm is None else self._comm.allgather_object(problem)
        if faults := dict.fromkeys(fault for fault in everyone if fault is not None):
            problems += faults
            return None
        self._earlier = costs
        if self.leads:
            self._stats.earlier[self._phase, min(self._reads)] = costs
        return snapshot

    def _write(self, snapshot: Snapshot, spent: TrainingCosts) -> str | None:
        """Writes this rank's parts, and on the leader the manifest; what went wrong, on the leader."""
        entries: dict[str, PartEntry] = {}
        problem = None
        try:
            for subdomain in self._writes:
                part = snapshot.part(subdomain, self._subdomain_of)
                entries |= self._store.write(snapshot.position, subdomain, part)
        except OSError as error:
            problem = str(error)
        outcome = (entries, problem, spent)
        everyone = [outcome] if self._comm is None else self._comm.gather_object(outcome)
        if everyone is None or not self.leads:
            return None
        costs = self._earlier + TrainingCosts(
            seconds=spent.seconds,
            core_seconds=sum(c.core_seconds for _, _, c in everyone),
            calls=max(c.calls for _, _, c in everyone),
            bytes=max(c.bytes for _, _, c in everyone),
            steps=spent.steps,
        )
        problem = next((text for _, text, _ in everyone if text is not None), None)
        if problem is None:
            try:
                all_entries = {key: entry for more, _, _ in everyone for key, entry in more.items()}
                costly = asdict(costs)
                self._store.publish(snapshot.position, all_entries, costly, self._whole)
                self._whole = snapshot.position
            except OSError as error:
                problem = str(error)
        return problem


def _words(position: Position) -> str:
    return f"epoch {position.epoch} and {position.steps} steps"
