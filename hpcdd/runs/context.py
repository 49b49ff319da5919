"""A job that works on a run: who does what, who hears of it, and where it is recorded."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from ..artifacts import summary
from ..artifacts.metrics_log import MetricsLog
from ..core.errors import DivergedError, RunError, StopRequest, UserError
from ..core.files import writing
from ..data import sample_storage
from ..data.problem import build_problem, check_rank, check_shares
from ..data.reading import BoxReader
from ..decomposition import rank_layout
from ..mpi import launcher
from ..mpi.communicator import Comm
from ..mpi.stop import Stop, signal_reason
from ..parallel.batch_shards import Flag
from ..parallel.team import form_team
from ..phases.attribution import EXAMINED, examined_rows
from ..training.optimizers import check_precisions
from ..training.status import Hooks, Status
from .profiling import Tracer
from .progress import board
from .progress.board import Board
from .progress.display import Display, NoDisplay, make_display
from .progress.telemetry import Telemetry
from .resume import Job
from .run_storage import RunStorage


class RunContext:
    """One rank's side of a job; a context manager. Every method is called by all ranks.

    Args:
        comm: all ranks.
        job: the same on every rank.
        above: of the whole job, where ``comm`` is a group of it.

    Attributes:
        comm, job: see above.
        config: of the job.
        problem: what is to be solved.
        layout, place: who owns what, and this rank's place.
        storage: where this rank keeps its samples.
        team: the ranks that this one works with; None on an idle rank.
        seconds: by phase, on this rank.
        core_seconds: CPU time by phase, of all threads of this rank.
        stop, telemetry: see there.
        reader: of the dataset file.
        archive, directory: of the run, once it is opened.

    Raises:
        UserError: on all ranks, if anything does not fit; nothing has been written then.
    """

    def __init__(self, comm: Comm, job: Job, above: Stop | None = None) -> None:
        config = job.config
        self.comm, self.config, self.job = comm, config, job
        # A job that goes on without ranks that have died has started long ago.
        self.seconds: dict[str, Any] = {"start": 0.0 if comm.diminished else comm.startup.age}
        self.core_seconds: dict[str, float] = {"start": comm.startup.worked}
        if config.run.tensorboard:
            comm.on_root(board.check)
        self.problem = comm.on_root(lambda: build_problem(config))
        if job.record is not None:  # an earlier revision may have begun in another order
            self.problem = replace(self.problem, blocks=job.record["blocks"])
        self.layout = rank_layout.build(comm, len(self.problem.decomposition), config.device)
        self.place = self.layout.places[comm.rank]
        torch.set_num_threads(self.place.threads)
        if job.study and self.place.device != "cpu":  # what it had in memory at most counts anew for every run
            torch.cuda.reset_peak_memory_stats(self.place.device)
        comm.on_all(self._check_place)
        self._storages = sample_storage.decide(comm, config, self.problem, self.layout)
        self.storage = self._storages.of(comm.rank)
        self.reader = BoxReader(self.problem.info.path)
        self._display: Display = NoDisplay()
        self._metrics: MetricsLog | None = None
        self._board: Board | None = None
        self._steps = 0
        self._failure: tuple[str, int] | None = None
        self._tracer: Tracer | None = None
        self._open = contextlib.ExitStack()
        interval = comm.on_root(self._open_display)
        channel = comm.side_channel()
        self.stop = Stop(comm, channel, above)
        self.telemetry = Telemetry(comm, channel, self._sink, interval)
        self.team = form_team(comm, self.layout, config, Flag(self.stop.wanted))
        if comm.is_root and not job.study:
            summary.print_plan(self.layout, self.problem, sys.stdout, self._storages)
        comm.startup.mark("problem")

    @cached_property
    def examined(self) -> npt.NDArray[np.int64]:
        """Samples of the split :data:`EXAMINED` that are examined, ascending."""
        problem = self.problem
        return examined_rows(
            self.config, problem.samples[EXAMINED], len(problem.decomposition), problem.info.num_classes
        )

    def __enter__(self) -> Self:
        self.stop.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close()
        self._open.__exit__(kind, error, trace)

    def open_directory(self) -> None:
        """Takes the run directory; see :class:`hpcdd.runs.run_storage.RunStorage`."""
        self.stop.agree()
        facts = {
            "dataset": self.problem.info.fingerprint,
            "blocks": self.problem.blocks,
            "device": self.place.device.partition(":")[0],
            "replicas": self.layout.replicas,
            "workers": sum(1 for place in self.layout.places if place.subdomains),
        }
        self.archive = self._open.enter_context(RunStorage(self.comm, self.job, facts, self.layout))
        if self.comm.is_root and self.job.study:  # where nothing is printed of it
            for warning in self.layout.warnings():
                self.archive.log.warning("%s", warning)
        self.directory = self.archive.directory
        self.comm.on_root(self._open_metrics)
        if self.job.profile:
            self._tracer = self._make_tracer()
        self.archive.watch(self._movement, lambda: f"step {self._steps}")
        self.comm.startup.mark("directory")

    @contextlib.contextmanager
    def discarding(self) -> Iterator[None]:
        """Takes a new run's directory away again where the block finds a mistake of the user."""
        try:
            yield
        except UserError as error:
            if error.agreed != self.comm.size:
                raise
            if not self.comm.is_root:
                self._open.close()
            self.comm.maximum(0)  # all have closed their files there
            if self.comm.is_root and self.job.record is None:
                self.directory.remove()
            raise

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[None]:
        """Says of a request to stop why it came, and how the run is resumed."""
        try:
            yield
        except StopRequest as request:
            why = signal_reason(request.signum, os.environ, time.time())
            self.archive.log.warning("%s; %s", request, why)
            raise request.saying(f" ({why}); {self.job.go_on(self.directory.path)}") from None

    def _open_metrics(self) -> None:
        with writing(self.directory.metrics):
            self._metrics = MetricsLog(self.directory.metrics)
        self._open.callback(self._metrics.close)
        if self.config.run.tensorboard:
            with writing(self.directory.tensorboard):
                self._board = Board(self.directory.tensorboard)

    def _make_tracer(self) -> Tracer:
        def folder() -> None:
            with writing(self.directory.profile):
                self.directory.profile.mkdir(exist_ok=True)

        self.comm.on_root(folder)
        return Tracer(self.directory.profile, self.comm.rank, self.place.device, self.archive.log)

    def _movement(self) -> tuple[int, ...]:
        """Changes while this rank works."""
        return self._steps, self.reader.bytes_read, sum(traffic.calls for traffic in list(self.comm.traffic.values()))

    def begin(self, phase: str, subdomains: range) -> None:
        """Announces on root's display whose statuses will come."""
        self._display.begin(phase, subdomains)

    def close_display(self) -> None:
        """Leaves the display's last state visible, before something is printed below it."""
        self._display.close()

    @contextlib.contextmanager
    def phase(self, name: str, *, apart: bool = False) -> Iterator[None]:
        """A phase that all ranks end together: traffic and seconds of both kinds are recorded under ``name``.

        Args:
            name: of the phase.
            apart: whether no rank waits for another one before its end.

        Raises:
            StopRequest: on all ranks alike at the end, if any rank wants to stop.
            RunError: in a study, on all ranks alike at the end, with what :meth:`kept` has kept on any.
        """
        start, worked = time.perf_counter(), time.process_time()
        with self.comm.phase(name):
            with self.kept(apart=apart):
                yield
            if self._tracer is not None:
                self._tracer.end()
            with self.comm.phase("agreement"):
                if self.job.study:
                    self._agree_on_failure()
                self.stop.agree(name)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.core_seconds[name] = self.core_seconds.get(name, 0.0) + time.process_time() - worked

    @contextlib.contextmanager
    def kept(self, *, apart: bool) -> Iterator[None]:
        """What ends the block is kept for the end of the phase, where all ranks hear of it.

        A request to stop is; in a study so is a divergence, which all ranks meet that train together, and where this
        rank works ``apart``, whatever it meets. Anything else ends the whole job: others wait for a message from here.
        """
        try:
            yield
        except StopRequest:
            pass
        except Exception as error:
            if not self.job.study or not (apart or isinstance(error, DivergedError)):
                raise
            where = f"rank {self.comm.rank} of {self.comm.size} on {socket.gethostname()}"
            if isinstance(error, DivergedError):
                self._failure = "" if error.heard else str(error), error.exit_code
            elif isinstance(error, UserError):
                self._failure = f"{where}: {error}", error.exit_code
            else:
                self._failure = f"{where} failed in phase {self.comm.phase_name}\n{traceback.format_exc().rstrip()}", 1

    def _agree_on_failure(self) -> None:
        if not self.comm.maximum(int(self._failure is not None), self.stop.poll):
            return
        found = [failure for failure in self.comm.allgather_object(self._failure) if failure is not None]
        error = RunError("\n".join(dict.fromkeys(text for text, _ in found if text)), max(code for _, code in found))
        error.agreed = self.comm.size
        raise error

    def hooks(self, *, alone: bool, heard: bool = True) -> Hooks:
        """What a training calls.

        Args:
            alone: whether a wish to stop ends this rank's training by itself; else it rides in the messages.
            heard: whether this rank's statuses are shown and recorded: of several that train one network, one is.
        """

        def step() -> None:
            if self._steps == 1:
                self.comm.startup.mark("first_step")
            self._steps += 1
            if self._tracer is not None:
                self._tracer.step(self.comm.phase_name)
            if alone:
                self.stop.check()
            else:
                self.stop.poll()
            self.telemetry.poll()

        def epoch(status: Status) -> None:
            self.archive.log.info("%s", status)
            if heard:
                self.telemetry.epoch(status)

        hooks = Hooks(step=step, epoch=epoch, evaluation=lambda: self.comm.phase("evaluation"))
        if not heard:
            return hooks
        return replace(hooks, due=self.telemetry.due, status=self.telemetry.status, history=self.telemetry.history)

    def _check_place(self) -> None:
        check_precisions(self.config, ("local", "coherent", "baseline"), self.place.device)
        check_shares(self.config, self.problem, self.layout)
        check_rank(self.config, self.problem, self.place)

    def _open_display(self) -> float:
        """On root; of many runs at a time none draws."""
        if self.job.study:
            return self._display.interval
        self._display = make_display(self.config.progress, launcher.from_environment(), sys.stdout)
        return self._display.interval

    def _sink(self, status: Status, *, end_of_epoch: bool, earlier: bool = False) -> None:
        """On root, of all ranks."""
        self._display.show(status, end_of_epoch and not earlier)
        if end_of_epoch and self._metrics is not None:
            self._metrics.add(status.record())
        if end_of_epoch and self._board is not None:
            self._board.add(status)
