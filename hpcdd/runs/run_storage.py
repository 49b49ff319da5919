"""What a job holds of its run directory: the lock, the run's record, and what earlier jobs have evaluated."""

from __future__ import annotations

import contextlib
import logging
import secrets
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifacts.evaluation_cache import Arrays, EvaluationCache
from ..config.loading import to_yaml
from ..config.schema import Config
from ..core import environment
from ..core.errors import RESUME, CollectiveError, DivergedError, InUseError, StopRequest, UserError, WriteError
from ..core.files import write_bytes, write_json, writing
from ..core.names import TrainingName
from ..data.format import EMBEDDED_NAME
from ..decomposition.rank_layout import RankLayout
from ..mpi.communicator import Comm
from ..mpi.runtime import is_loss, mpi_library
from . import resume, run_directory
from .lock import Lock
from .reuse import import_result
from .run_directory import RunDirectory
from .run_log import rank_log, warn


@dataclass(frozen=True)
class RunStorage:
    """One rank's side of a run directory.

    Attributes:
        directory: names of its files.
        log: of this rank.
        record: what the run says of itself, see :class:`hpcdd.runs.resume.Job`.
        evaluated: by phase what its evaluation found, for phases that are complete; the same on every rank, but on root
            with those of this job.
        cache: on root, of the same on the disk.
    """

    directory: RunDirectory
    log: logging.Logger
    record: Mapping[str, Any]
    evaluated: dict[TrainingName, Any]
    cache: EvaluationCache | None

    def warn(self, text: str) -> None:
        """Prints a warning, and logs it."""
        warn(self.log, text)

    @property
    def arrays(self) -> dict[TrainingName, Arrays]:
        """On root, by phase the arrays of those in ``evaluated`` for decisions.h5."""
        return {} if self.cache is None else self.cache.arrays

    def add_evaluation(self, phase: TrainingName, evaluation: dict[str, Any], arrays: Arrays) -> None:
        """On root: stores what a phase's evaluation found; if that can't be written, a resumed run repeats it."""
        assert self.cache is not None
        self.evaluated[phase] = evaluation
        try:
            self.cache.add(phase, evaluation, arrays)
        except WriteError as error:
            self.warn(str(error))

    def complete(self) -> None:
        """On root: the run is complete.

        Raises:
            WriteError: that can't be written.
        """
        self.directory.write_record({**self.record, "complete": True})


@contextlib.contextmanager
def open_storage(comm: Comm, job: resume.Job, facts: Mapping[str, Any], layout: RankLayout) -> Iterator[RunStorage]:
    """Root makes the folder, or locks that of an unfinished run; each rank opens its log there. Collective.

    After the block the folder is free for other jobs. The exception that ends it is logged on each rank.

    Args:
        comm: all ranks.
        job: the same on every rank.
        facts: for the record, see :class:`hpcdd.runs.resume.Job`; root's count.
        layout: who does what.

    Raises:
        UserError: on all ranks: another job is at work there, or the run was begun with something else.
        WriteError: on all ranks.
    """
    config = _absolute(job.config)
    comm.on_root(lambda: resume.check_facts(job, facts))
    with contextlib.ExitStack() as opened:
        cache: EvaluationCache | None = None

        def take() -> tuple[RunDirectory, dict[str, Any], dict[TrainingName, Any], str | None]:
            nonlocal cache
            directory = run_directory.make(job.config.output, job.config.name)
            left = opened.enter_context(_locked(directory, comm))
            record, cache = _begun(directory, job, config, facts)
            return directory, record, dict(cache.phases), left

        directory, record, evaluated, left = comm.on_root(take)
        log = opened.enter_context(rank_log(comm, directory.log(comm.rank)))
        log.info("rank %d of %d: %s", comm.rank, comm.size, layout.placements[comm.rank])
        if comm.is_root and left is not None:
            warn(log, f"{left} left {directory.path} without finishing it")
        if comm.is_root and job.record is not None and not job.study:
            print(f"resuming {directory.path}", flush=True)
        comm.on_root(lambda: _write_documents(directory, config, comm, layout))
        try:
            yield RunStorage(directory, log, record, evaluated, cache)
        except BaseException as error:
            agreed = isinstance(error, CollectiveError) and error.agreed > 0
            if not (agreed and isinstance(error, StopRequest)):
                expected = agreed or isinstance(error, UserError | DivergedError)
                log.error("%s", error if expected else "".join(traceback.format_exception(error)))
            raise


@contextlib.contextmanager
def _locked(directory: RunDirectory, comm: Comm) -> Iterator[str | None]:
    """On root: holds the folder's lock; yields who has left it behind.

    An exception on this rank only ends the job: then the lock ends with this process, since other ranks may still
    write, and end before it.
    """

    def displaced() -> None:  # in the lock's thread: what this job would write now would mix with what another writes
        sys.stderr.write(f"hpcdd: {directory.path} now belongs to another job; this one ends\n")
        sys.stderr.flush()
        comm.abort(RESUME)

    lock = Lock(directory.lock, lost=displaced)
    left = lock.acquire()
    try:
        yield left
    except BaseException as error:
        if (isinstance(error, CollectiveError) and error.agreed == comm.size) or is_loss(error):
            lock.release()
        raise
    lock.release()


def _begun(
    directory: RunDirectory, job: resume.Job, config: Config, facts: Mapping[str, Any]
) -> tuple[dict[str, Any], EvaluationCache]:
    """On root, under the lock: the run's record, and what is evaluated."""
    present = directory.record()  # what was read before the lock was held may be outdated
    if (present or {}).get("run") != (job.record or {}).get("run"):
        raise InUseError(f"another job has started in {directory.path} in the meantime; start again")
    if present is not None and job.record is not None and present["complete"] and not job.record["complete"]:
        raise InUseError(f"another job has completed {directory.path} in the meantime")
    directory.tidy()
    run = secrets.token_hex(8) if job.record is None else job.record["run"]
    record = resume.record_of(config, run, **facts, reused=(job.record or {}).get("reused", {}))
    for phase, source in job.sources.items():
        if import_result(phase, RunDirectory(source), directory, record):
            record["reused"][phase] = str(source)
    cache = EvaluationCache(directory.checkpoints, run)
    if job.record and (outdated := resume.trained_further(job.record, job.config)):
        cache.drop(outdated)  # before the record says that there are more epochs
    directory.write_record(record)
    return record, cache


def _absolute(config: Config) -> Config:
    """The same configuration from any folder."""
    data = config.data
    if data.file != EMBEDDED_NAME:
        data = data.model_copy(update={"file": str(Path(data.file).absolute())})
    return config.model_copy(update={"data": data})


def _write_documents(directory: RunDirectory, config: Config, comm: Comm, layout: RankLayout) -> None:
    """On root: config.yaml, and environment.json, which has these keys besides those of :func:`environment.facts`.

    Keys:
        mpi_library (str): version string of the MPI library.
        ranks (int): number of ranks.
        hosts (int): number of hosts.
        places (list[RankPlacement]): the placement of every rank.
    """
    facts = {
        **environment.facts(),
        "mpi_library": mpi_library(),
        "ranks": comm.size,
        "hosts": layout.hosts,
        "places": layout.as_list(),
    }
    with writing(directory.path):
        write_bytes(directory.config, to_yaml(config).encode())
        write_json(directory.environment, facts)
