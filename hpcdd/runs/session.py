"""A job at work on its run: the open run directory, the progress of all ranks, the phases and what ends them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..artifacts.metrics_log import MetricsLog
from ..core.errors import StopRequest, UserError
from ..core.files import writing
from ..core.names import PhaseName, TrainingName
from ..mpi import launcher
from ..mpi.stop import signal_reason
from ..training.status import Status
from .context import RunContext
from .failure_policy import FailurePolicy
from .heartbeats import watched
from .phase_timer import PhaseTimer
from .profiling import Tracer
from .progress.board import Board
from .progress.display import Display, make_display
from .progress.telemetry import Moment, Telemetry
from .run_checkpoints import RunCheckpoints
from .run_directory import RunDirectory
from .run_storage import RunStorage, open_storage
from .training_hooks import TrainingHooks


@dataclass(frozen=True)
class RunSession:
    """One rank's side. Every method is called by all ranks.

    Attributes:
        context: of the job.
        storage: of the run directory.
        checkpoints: of its trainings.
        timer: of its phases.
        failures: what happens to exceptions in them.
        display: of statuses; on root, those of all ranks.
        telemetry: which brings them there.
        hooks: of trainings.
        tracer: of some steps, with ``--profile``.
        close: closes all that is open in the run directory, and gives it free.
    """

    context: RunContext
    storage: RunStorage
    checkpoints: RunCheckpoints
    timer: PhaseTimer
    failures: FailurePolicy
    display: Display
    telemetry: Telemetry
    hooks: TrainingHooks
    tracer: Tracer | None
    close: Callable[[], None]

    @property
    def directory(self) -> RunDirectory:
        """Of the run."""
        return self.storage.directory

    def begin(self, phase: TrainingName, subdomains: range) -> None:
        """Announces on root's display whose statuses will come."""
        self.display.begin(phase, subdomains)

    @contextlib.contextmanager
    def phase(self, name: PhaseName, *, independent: bool = False) -> Iterator[None]:
        """A phase, at whose end all ranks agree: traffic, wall and CPU seconds are recorded under ``name``.

        Args:
            name: of the phase.
            independent: whether no rank waits for another one before its end.

        Raises:
            StopRequest: on all ranks at the end, if any rank wants to stop.
            RunError: in a study, on all ranks at the end, with what was kept on any.
        """
        comm, stop = self.context.comm, self.context.stop
        with self.timer.phase(name), comm.phase(name):
            with self.failures.kept(independent=independent):
                yield
            if self.tracer is not None:
                self.tracer.end()
            with comm.phase("agreement"):
                self.failures.agree(stop.poll)
                stop.agree(name)

    @contextlib.contextmanager
    def discarding(self) -> Iterator[None]:
        """Removes what is in a new run's directory where the block finds a mistake of the user; also the folder, unless
        the user named it.
        """
        comm = self.context.comm
        try:
            yield
        except UserError as error:
            if error.agreed != comm.size:
                raise
            if not comm.is_root:
                self.close()
            comm.maximum(0)  # the others have closed their files there
            if comm.is_root and self.context.job.record is None:
                folder = self.directory.path
                for path in folder.iterdir():
                    with contextlib.suppress(OSError):  # on NFS, folders in which root has files open stay
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                self.close()
                unnamed = [folder, folder.parent] if self.context.job.config.output is None else []
                for path in (*folder.iterdir(), *unnamed):
                    with contextlib.suppress(OSError):  # it is in use
                        path.rmdir()
            raise

    @contextlib.contextmanager
    def stoppable(self) -> Iterator[None]:
        """Says of a request to stop why it came, and how the run is resumed."""
        try:
            yield
        except StopRequest as request:
            if request.agreed != self.context.comm.size:
                raise
            why = signal_reason(request.signum, os.environ, time.time())
            self.storage.log.warning("%s; %s", request, why)
            raise request.saying(f" ({why}); {self.context.job.remedy(self.directory.path)}") from None


@contextlib.contextmanager
def open_session(context: RunContext) -> Iterator[RunSession]:
    """Takes the run directory and begins the work; collective.

    Raises:
        UserError: on all ranks: the directory can't be taken, see :func:`hpcdd.runs.run_storage.open_storage`.
        StopRequest: on all ranks: any of them was asked to stop so early.
    """
    comm, job, stop = context.comm, context.job, context.stop
    # A job that continues without ranks that have died has started long ago.
    timer = PhaseTimer(0.0 if comm.diminished else comm.startup.age, comm.startup.worked)
    with contextlib.ExitStack() as opened:
        display = Display()

        def show() -> float:
            nonlocal display
            if not job.study:  # of many runs at a time none draws
                display = make_display(context.config.progress, launcher.from_environment(), sys.stdout)
                opened.callback(display.close)
            return display.interval

        interval = comm.on_root(show)
        stop.listen()
        stop.agree()
        storage = opened.enter_context(open_storage(comm, job, context.facts, context.layout))
        directory = storage.directory
        if comm.is_root and job.study:  # where nothing is printed of it
            for warning in context.layout.warnings():
                storage.log.warning("%s", warning)
        recorders: list[Callable[[Status], None]] = []

        def record() -> None:
            with writing(directory.metrics):
                metrics = MetricsLog(directory.metrics)
            opened.callback(metrics.close)
            recorders.append(lambda status: metrics.add(status.record()))
            if context.config.run.tensorboard:
                with writing(directory.tensorboard):
                    recorders.append(Board(directory.tensorboard).add)

        def receive(status: Status, moment: Moment) -> None:
            display.show(status, moment == "end of epoch")
            if moment != "within epoch":
                for add in recorders:
                    add(status)

        comm.on_root(record)
        telemetry = Telemetry(comm, context.channel, receive, interval)
        tracer = _make_tracer(context, storage) if job.profile else None
        hooks = TrainingHooks(comm, stop, telemetry, storage.log, tracer)

        def movement() -> tuple[int, ...]:
            return hooks.steps, context.reader.bytes_read, sum(traffic.calls for traffic in list(comm.traffic.values()))

        if (timeout := context.config.run.stall_timeout) is not None:
            remedy = job.remedy(directory.path)
            watch = watched(comm, directory, timeout, movement, lambda: f"step {hooks.steps}", storage.log, remedy)
            opened.enter_context(watch)
        comm.startup.mark("directory")
        yield RunSession(
            context=context,
            storage=storage,
            checkpoints=RunCheckpoints(
                directory, storage.record["run"], context.config.checkpoint, comm.ledger, storage.warn
            ),
            timer=timer,
            failures=FailurePolicy(comm, stop.wanted, study=job.study),
            display=display,
            telemetry=telemetry,
            hooks=hooks,
            tracer=tracer,
            close=opened.close,
        )


def _make_tracer(context: RunContext, storage: RunStorage) -> Tracer:
    folder = storage.directory.profile

    def make() -> None:
        with writing(folder):
            folder.mkdir(exist_ok=True)

    context.comm.on_root(make)
    return Tracer(folder, context.comm.rank, context.placement.device, storage.log)
