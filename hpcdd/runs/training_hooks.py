"""What a job does at each step of its trainings, and at the end of each epoch."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from ..mpi.communicator import Comm
from ..mpi.stop import Stop
from ..training.status import Hooks, Status
from .profiling import Tracer
from .progress.telemetry import Telemetry


class TrainingHooks:
    """Makes the hooks of one rank's trainings.

    Args:
        comm: all ranks.
        stop: asked at every step.
        telemetry: takes statuses.
        log: takes the ends of epochs.
        tracer: of some steps, with ``--profile``.

    Attributes:
        steps: step boundaries that this rank has passed.
    """

    def __init__(
        self, comm: Comm, stop: Stop, telemetry: Telemetry, log: logging.Logger, tracer: Tracer | None = None
    ) -> None:
        self._comm, self._stop, self._telemetry, self._log, self._tracer = comm, stop, telemetry, log, tracer
        self.steps = 0

    def make(self, *, independent: bool, reports: bool = True) -> Hooks:
        """The hooks of a training.

        Args:
            independent: whether a request to stop ends this rank's training at once; else it is piggybacked on the
                messages of the training, so that all its ranks stop at the same step.
            reports: whether this rank's statuses are shown and recorded: of several that train one network, one's are.
        """
        telemetry = self._telemetry

        def step() -> None:
            if self.steps == 1:
                self._comm.startup.mark("first_step")
            self.steps += 1
            if self._tracer is not None:
                self._tracer.step(self._comm.phase_name)
            if independent:
                self._stop.check()
            else:
                self._stop.poll()
            telemetry.poll()

        def epoch(status: Status) -> None:
            self._log.info("%s", status)
            if reports:
                telemetry.epochs([status])

        hooks = Hooks(step=step, epoch=epoch, evaluation=lambda: self._comm.phase("evaluation"))
        if not reports:
            return hooks
        history = partial(telemetry.epochs, earlier=True)
        return replace(hooks, due=telemetry.due, status=telemetry.status, history=history)
