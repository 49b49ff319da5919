"""What a job holds of its run directory: the lock, the run's record, the checkpoints of its trainings, a watchdog."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..artifacts.evaluation_cache import EvaluationCache, Pieces
from ..config.loading import to_yaml
from ..core import environment
from ..core.errors import RESUME, CollectiveError, DivergedError, InUseError, StopRequest, WriteError
from ..core.files import write_bytes, write_json, writing
from ..core.seeding import WHOLE
from ..core.texts import printable_lines
from ..data.format import EMBEDDED_NAME
from ..decomposition.rank_layout import RankLayout
from ..mpi.communicator import Comm
from ..mpi.library import is_loss, mpi_library, set_finalize_timeout
from ..parallel.team import Team
from ..training.checkpoints.manager import CheckpointManager, CheckpointStats
from ..training.checkpoints.snapshot import by_number
from . import resume, run_directory
from .heartbeats import Watchdog
from .lock import Lock
from .reuse import take_over
from .run_directory import RunDirectory


class RunStorage:
    """One rank's side of a run directory; a context manager, which gives it free in the end.

    Attributes:
        directory: names of its files.
        log: of this rank.
        journal: of this rank's checkpoints.
        evaluated: by phase what its evaluation found, for phases that are complete; the same on every rank.
    """

    def __init__(self, comm: Comm, job: resume.Job, facts: Mapping[str, Any], layout: RankLayout) -> None:
        """Collective: root makes the folder, or takes an unfinished one; each rank opens its log there.

        Args:
            comm: all ranks.
            job: the same on every rank.
            facts: for the record, see :class:`hpcdd.runs.resume.Job`; root's count.
            layout: who does what.

        Raises:
            UserError: on all ranks: another job is at work there, or the run was begun with something else.
            WriteError: on all ranks.
        """
        self._comm, self._job, self._config = comm, job, job.config
        self._broken = False
        data = job.config.data
        if data.file != EMBEDDED_NAME:  # it runs again from any folder
            data = data.model_copy(update={"file": str(Path(data.file).absolute())})
        self._resolved = job.config.model_copy(update={"data": data})
        comm.on_root(lambda: resume.check_facts(job, facts))
        with contextlib.ExitStack() as opened:
            self._open = opened
            self._cache: EvaluationCache | None = None
            self.directory, self._record, self.evaluated, left = comm.on_root(lambda: self._take(job, facts))
            self.log = comm.on_all(lambda: run_directory.start_log(self.directory.log(comm.rank)))
            opened.callback(run_directory.end_log)
            self.log.info("rank %d of %d: %s", comm.rank, comm.size, layout.places[comm.rank])
            self.journal = CheckpointStats(self.warn)
            if comm.is_root and left is not None:
                self.warn(f"{left} has left {self.directory.path} without an end")
            if comm.is_root and job.record is not None and not job.study:
                print(f"resuming {self.directory.path}", flush=True)
            self._manager = partial(
                CheckpointManager,
                run=self._record["run"],
                settings=job.config.checkpoint,
                journal=self.journal,
                ledger=comm.ledger,
            )
            comm.on_root(lambda: self._write_documents(layout))
            self._open = opened.pop_all()  # all is well: it stays open

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, StopRequest):
            told = isinstance(error, CollectiveError | DivergedError)
            self.log.error("%s", error if told else "".join(traceback.format_exception(error)))
        agreed = isinstance(error, CollectiveError) and error.agreed == self._comm.size
        if error is not None and not agreed and not is_loss(error):
            self._broken = True
        self._open.close()

    def _release(self, lock: Lock) -> None:
        """Else the lock ends with this process: other ranks may still write, and end before it."""
        if not self._broken:
            lock.release()

    def warn(self, text: str) -> None:
        """Tells the user, and the log."""
        self.log.warning("%s", text)
        sys.stderr.write(f"hpcdd: warning: {printable_lines(text)}\n")
        sys.stderr.flush()

    # -- a run's documents -------------------------------------------------------------------------------------------

    @property
    def pieces(self) -> dict[str, Pieces]:
        """On root, by phase what those in ``evaluated`` contribute to decisions.h5."""
        return {} if self._cache is None else self._cache.pieces

    def remember(self, phase: str, found: dict[str, Any], pieces: Pieces) -> None:
        """On root: what a phase's evaluation found; should it not be writable, a resumed run evaluates again."""
        assert self._cache is not None
        self.evaluated[phase] = found
        try:
            self._cache.add(phase, found, pieces)
        except WriteError as error:
            self.warn(str(error))

    @property
    def reused(self) -> dict[str, str]:
        """By phase the run directory whose result was taken over."""
        found: dict[str, str] = self._record["reused"]
        return found

    def complete(self) -> None:
        """On root: the run is complete.

        Raises:
            WriteError: that can't be written.
        """
        self.directory.write_record({**self._record, "complete": True})

    def _take(
        self, job: resume.Job, facts: Mapping[str, Any]
    ) -> tuple[RunDirectory, dict[str, Any], dict[str, Any], str | None]:
        """On root: the folder, the run's record, what is evaluated, and who has left it without an end."""
        directory = run_directory.make(job.config.output, job.config.name)
        lock = Lock(directory.lock, lost=self._end_displaced)
        left = lock.acquire()
        self._open.callback(self._release, lock)
        present = directory.record()  # what was decided before the lock was held may be outdated
        if (present or {}).get("run") != (job.record or {}).get("run"):
            raise InUseError(f"another job has begun in {directory.path} meanwhile; start again")
        if present is not None and job.record is not None and present["complete"] and not job.record["complete"]:
            raise InUseError(f"another job has completed {directory.path} meanwhile")
        directory.tidy()
        run = secrets.token_hex(8) if job.record is None else job.record["run"]
        record = resume.record_of(self._resolved, run, **facts, reused=(job.record or {}).get("reused", {}))
        for phase, donor in job.donors.items():
            if take_over(phase, RunDirectory(donor), directory, record):
                record["reused"][phase] = str(donor)
        self._cache = EvaluationCache(directory.checkpoints, run)
        if job.record and (outdated := [resume.PHASES[name] for name in resume.grown(job.record, job.config)]):
            self._cache.drop(outdated)  # before the record says that there are more epochs
        directory.write_record(record)
        return directory, record, dict(self._cache.phases), left

    def _write_documents(self, layout: RankLayout) -> None:
        facts = {
            **environment.facts(),
            "mpi_library": mpi_library(),
            "ranks": self._comm.size,
            "hosts": layout.hosts,
            "places": layout.as_list(),
        }
        with writing(self.directory.path):
            write_bytes(self.directory.config, to_yaml(self._resolved).encode())
            write_json(self.directory.environment, facts)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def of_local(self, team: Team, subdomain: int) -> CheckpointManager:
        """The checkpoints of one local CNN: no message, but between replicas."""
        return self._manager(
            self.directory.training("local", subdomain),
            phase="local",
            comm=team.replicas,
            subdomain_of=lambda _: subdomain,
            writes=() if team.place.replica else (subdomain,),
            reads=(subdomain,),
        )

    def of_dnn(self) -> CheckpointManager:
        """Those of the DNN that root trains."""
        return self._manager(self.directory.training("dnn"), phase="dnn", comm=None)

    def of_parts(self, phase: str, team: Team, comm: Comm) -> CheckpointManager:
        """Those of a network whose parts lie on the ranks of ``comm``; of several replicas the first writes."""
        own = team.place.subdomains
        return self._manager(
            self.directory.training(phase),
            phase=phase,
            comm=comm,
            subdomain_of=by_number,
            writes=() if team.place.replica else (*([WHOLE] if comm.is_root else []), *own),
            reads=(WHOLE, *own),
        )

    def of_copies(self, phase: str, team: Team) -> CheckpointManager:
        """Those of a network of which all workers have copies."""
        writes = (WHOLE,) if team.workers.is_root else ()
        return self._manager(self.directory.training(phase), phase=phase, comm=team.workers, writes=writes)

    # -- hanging ranks -----------------------------------------------------------------------------------------------

    def watch(self, movement: Callable[[], object], words: Callable[[], str]) -> None:
        """Collective: from now on a rank that hangs ends the job; arguments as for :class:`Watchdog`."""
        timeout, comm = self._config.run.stall_timeout, self._comm
        if timeout is None:
            return
        watchdog = Watchdog(
            self.directory.heartbeats,
            comm.rank,
            comm.size,
            timeout,
            lambda: None if comm.ledger.inside else movement(),
            lambda: f"phase {comm.phase_name}, {words()}",
            self._end_stalled,
        )
        comm.on_all(lambda: self._open.enter_context(watchdog))
        set_finalize_timeout(timeout, f"another rank hangs at its end; {self.directory.path} is closed", RESUME)

    def _end_stalled(self, text: str) -> None:
        """In the watchdog's thread: the main thread may hang within MPI."""
        if text:
            for line in text.splitlines():
                self.log.error("%s", line)
            more = f"the job is ended; {self._job.go_on(self.directory.path)}"
            sys.stderr.write("".join(f"hpcdd: {line}\n" for line in [*text.splitlines(), more]))
            sys.stderr.flush()
            time.sleep(0.5)  # as in hpcdd.cli.main: mpirun may end before it has passed on what was printed last
        self._end()

    def _end_displaced(self) -> None:
        """In the lock's thread: what this job would write now would mix with what another one writes."""
        sys.stderr.write(f"hpcdd: {self.directory.path} belongs to another job now; this one is ended\n")
        sys.stderr.flush()
        self._end()

    def _end(self) -> None:
        """Ends all ranks, from any thread."""
        self._comm.abort(RESUME)
