"""The ranks of a job in groups, each of which trains one run of a study after the other.

All groups of a stage are of one size, that which its runs need. An error that all ranks of a run agree on (a mistake
of the user, a full disk, a divergence, and in the local phase any exception on one rank) ends only that run. A defect
on one rank for which others of its group wait ends the whole job; the run is recorded as failed before, so that a
restarted job resumes the others.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..artifacts.results import Results
from ..core.environment import ColocatedRanks
from ..core.errors import CollectiveError, InUseError, StopRequest, UserError
from ..core.names import CLASSIFIERS, PHASES
from ..core.texts import printable_lines
from ..mpi.communicator import Comm
from ..mpi.stop import Stop
from ..runs.pipeline import train
from .planned_runs import PlannedRun
from .run_queue import Claim, Queue
from .study_directory import StudyDirectory

_PAUSE = 0.5
"""Seconds between two attempts of a group that waits for another one's result."""


@dataclass(frozen=True)
class Stage:
    """Runs that need groups of one size.

    Attributes:
        size: ranks of a group.
        groups: their number.
        entries: the runs, in the order in which they are taken.
    """

    size: int
    groups: int
    entries: tuple[PlannedRun, ...]

    def group(self, rank: int) -> int | None:
        """The group of a rank of the job; None of a rank that has nothing to do."""
        return rank // self.size if rank < self.groups * self.size else None


def stages(entries: Sequence[PlannedRun], ranks: int) -> list[Stage]:
    """What a job of that many ranks does: the largest groups first, all groups of one size at one time."""
    planned_stages = []
    for size in sorted({entry.ranks for entry in entries}, reverse=True):
        entries_of_size = tuple(entry for entry in entries if entry.ranks == size)
        planned_stages.append(Stage(size, min(ranks // size, len(entries_of_size)), entries_of_size))
    return planned_stages


def work(
    world: Comm, stop: Stop, directory: StudyDirectory, job: str, stage: Stage, offering: Sequence[PlannedRun]
) -> list[str]:
    """Collective over all ranks: the runs of one stage.

    Args:
        world: all ranks.
        stop: of the job.
        directory: of the study.
        job: identity of this job.
        stage: see there.
        offering: all runs of the study that may have results.

    Returns:
        On root the runs at which another job is at work; elsewhere nothing.

    Raises:
        UserError: on all ranks, what ends the whole study.
        StopRequest: on all ranks.
    """
    group = stage.group(world.rank)
    part = world.split(group, _colocated(world, stage))
    busy: list[str] = []
    error: UserError | None = None
    if part is not None:
        rank_group = _RankGroup(part, stop, directory, job, stage, offering)
        rank_group.work()
        busy, error = rank_group.busy if part.is_root else [], rank_group.error
    stop.agree("study")  # ranks that have finished wait
    world.on_all(lambda: _raise(error))
    return [run for of_group in world.gather_object(busy) or [] for run in of_group]


@dataclass
class _RankGroup:
    """One group, on one of its ranks.

    Attributes:
        comm: its ranks.
        stop, directory, job, stage, offering: see :func:`work`.
        busy: runs at which another job is at work; the same on all ranks of the group.
        error: what ends the whole study, such as a full disk; the same on all ranks of the group.
    """

    comm: Comm
    stop: Stop
    directory: StudyDirectory
    job: str
    stage: Stage
    offering: Sequence[PlannedRun]
    busy: list[str] = field(default_factory=list)
    error: UserError | None = None

    def work(self) -> None:
        """Takes runs until none is left, or all are asked to stop."""
        try:
            queue = self.comm.on_root(lambda: Queue(self.directory, self.job, self.stage.entries, self.offering))
            while (claim := self._next(queue)) is not None:
                self._train(claim)
                if self.comm.is_root:
                    queue.end(claim)
        except StopRequest:
            pass  # all ranks of the job agree on it
        except UserError as error:
            if error.agreed != self.comm.size:
                raise
            self.error = error

    def _next(self, queue: Queue) -> Claim | None:
        """Collective: the next run; None where none is left."""
        claim, problem = None, None
        if self.comm.is_root:
            try:
                while not self.stop.wanted() and (claim := queue.take()) is None and queue.left:
                    time.sleep(_PAUSE)
                    self.stop.poll()
            except UserError as error:
                problem = error
        if self.comm.maximum(int(self.stop.wanted()), self.stop.poll):  # the others wait meanwhile
            return None
        self.comm.refuse(problem)
        return self.comm.broadcast_object(claim)

    def _train(self, claim: Claim) -> None:
        """Collective: one run."""
        comm, run = self.comm, claim.entry.run
        start = time.monotonic()
        try:
            job = comm.on_root(lambda: self.directory.job(run, claim.sources))
            if job.done:
                return  # by another job, since this one began
            self._say(f"run {run.id} begins on {comm.size} rank{'s' * (comm.size > 1)}{_reused(claim)}")
            run_comm = comm.duplicate()
            try:
                train(run_comm, job, self.stop)
            except CollectiveError as error:
                if error.agreed == comm.size and not isinstance(error, StopRequest):
                    run_comm.free()
                raise
            run_comm.free()
        except CollectiveError as error:
            if error.agreed != comm.size:
                self._record_failure(claim)
                raise
            if isinstance(error, StopRequest):
                raise
            if isinstance(error, InUseError):
                self.busy.append(run.id)
                self._say(f"run {run.id} is skipped: {error}")
            else:
                text, code = str(error), error.exit_code
                comm.on_root(lambda: self.directory.fail(run.id, text, code))
                self._say(f"run {run.id} has failed: {text.splitlines()[0]}")
        except BaseException:
            self._record_failure(claim)
            raise
        else:
            if comm.is_root:
                seconds = time.monotonic() - start
                self._say(f"run {run.id} is complete after {seconds:.1f} s: {self._accuracies(run.id)}")
        gc.collect()  # networks that refer to themselves, before the next ones are made
        torch.cuda.empty_cache()  # other groups may work on the same GPU; without one nothing is done

    def _record_failure(self, claim: Claim) -> None:
        """Records on one rank that the run has failed: the job ends."""
        rank = f"rank {self.comm.rank} of {self.comm.size} on {socket.gethostname()}"
        with contextlib.suppress(UserError):  # what the job ends with is reported in any case
            self.directory.fail(claim.entry.run.id, f"{rank} failed\n{traceback.format_exc()}", 1)

    def _accuracies(self, run_id: str) -> str:
        results = Results.read(self.directory.run(run_id).results)
        rates = {name: results.accuracy["test"].of(name) for name in CLASSIFIERS}
        return ", ".join(f"{name} {rate:.4f}" for name, rate in rates.items() if rate is not None)

    def _say(self, text: str) -> None:
        if self.comm.is_root:
            print(printable_lines(text), flush=True)


def _reused(claim: Claim) -> str:
    texts = [f"{PHASES[phase]} of {source.name}" for phase, source in claim.sources.items()]
    return f", with {' and '.join(texts)}" if texts else ""


def _colocated(world: Comm, stage: Stage) -> ColocatedRanks:
    """Collective: the ranks of other groups on this rank's host."""
    node, masks = world.node_ranks(), world.allgather_object(frozenset(os.sched_getaffinity(0)))
    group = stage.group(world.rank)
    others = [rank for rank in node if stage.group(rank) not in (None, group)]
    return ColocatedRanks(tuple(masks[rank] for rank in others), sum(rank < world.rank for rank in others))


def _raise(error: UserError | None) -> None:
    if error is not None:
        raise error
