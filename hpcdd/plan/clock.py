"""How long a unit of work or a message takes, from a machine file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core.errors import UserError
from . import collective_model
from .machine import Machine, MeasuredStep
from .messages import Message
from .workload import Work, Workload

MEASURED, FITTED, SCALED = "measured", "fitted over measured sizes", "scaled by operations"


@dataclass
class Clock:
    """Seconds on one machine.

    Attributes:
        machine: what was measured.
        workload: of the run.
        threads: of each rank.
        ranks_per_host: the most.
        device: ``cpu``, or the name of the GPU.
        bases: by network where its times came from, for people; filled by :meth:`work`.
        notes: what people should know of the messages; filled by :meth:`messages`.
    """

    machine: Machine
    workload: Workload
    threads: int
    ranks_per_host: int
    device: str = "cpu"
    bases: dict[str, str] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def oversubscription(self, busy: int) -> float:
        """By how much threads slow each other down with ``busy`` ranks on a host: threads per core, at least 1."""
        return max(1.0, busy * self.threads / self.machine.host.cores) if self.device == "cpu" else 1.0

    def work(self, work: Work, busy: int) -> float:
        """Seconds of a unit of work while ``busy`` ranks work on its host.

        A time that was measured for the very same work; else t0 + f / r, with the floating point operations f of the
        work, and t0 and the rate r fitted over all sizes of its network that were measured; else, of a network that was
        not measured, the time of the nearest work of its kind, in proportion to the operations.

        Raises:
            UserError: no work of its kind was measured with these threads on this device.
        """
        kind = [
            step
            for step in self.machine.steps
            if (step.kind, step.precision, step.device, step.threads)
            == (work.kind, work.precision, self.device, self.threads)
        ]
        if not kind:
            threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
            raise UserError(
                f"the machine file has no time of a step of kind {work.kind!r} in {work.precision} on {self.device} "
                f"with {threads}; add it by `OMP_NUM_THREADS={self.threads} mpirun -n N hpcdd bench step [CONFIG] "
                "--output FILE`"
            )
        same = self._nearest_busy([step for step in kind if step.network == work.network], busy)
        exact = [step for step in same if (step.batch, step.summands) == (work.batch, work.summands)]
        if exact:
            seconds, basis = self._seconds(exact[0], busy), MEASURED
        else:
            flops = self.workload.simulated(work).flops
            if len(same) > 1:
                seconds, basis = self._fitted(same, flops, busy), FITTED
            else:
                nearest = min(self._nearest_busy(kind, busy), key=lambda step: abs(math.log(step.flops / flops)))
                seconds, basis = self._seconds(nearest, busy) * flops / nearest.flops, SCALED
        self.bases.setdefault(f"{work.kind}, {work.network}", basis)
        return seconds

    def messages(self, messages: Iterable[Message], ranks: int) -> float:
        """Seconds of some messages of a job of ``ranks`` ranks, one after the other.

        Raises:
            UserError: the machine file has no model of a collective.
        """
        seconds, between = 0.0, ranks > self.ranks_per_host
        oversubscribed = min(ranks, self.ranks_per_host) * self.threads > self.machine.host.cores
        for message in messages:
            if message.ranks < 2:
                continue
            fit, exact = self.machine.fit_of(message.collective, between_hosts=between, oversubscribed=oversubscribed)
            if fit is None:
                raise UserError(
                    f"the machine file has no model of {message.collective}; add it by `mpirun -n N hpcdd bench "
                    "collectives [CONFIG] --output FILE`"
                )
            if not exact:
                where = "between hosts" if between else "within a host"
                how = " whose ranks share cores" if oversubscribed else ""
                self.notes[
                    f"messages {where}{how}: not in the machine file; times are those "
                    f"{'between hosts' if fit.between_hosts else 'within a host'}"
                    f"{' whose ranks share cores' if fit.oversubscribed else ' with a core for each rank'}"
                ] = None
            seconds += message.number * collective_model.seconds(fit, message.size, message.ranks)
        return seconds

    def _nearest_busy(self, steps: Sequence[MeasuredStep], busy: int) -> list[MeasuredStep]:
        """Steps measured with ``busy`` ranks on a host, else with the next smaller number, else with the smallest."""
        if not steps:
            return []
        counts = {step.busy for step in steps}
        fewer = [count for count in counts if count <= busy]
        chosen = max(fewer) if fewer else min(counts)
        return [step for step in steps if step.busy == chosen]

    def _seconds(self, step: MeasuredStep, busy: int) -> float:
        return step.seconds[1] * self.oversubscription(busy) / self.oversubscription(step.busy)

    def _fitted(self, steps: Sequence[MeasuredStep], flops: int, busy: int) -> float:
        rows = np.array([[1.0, step.flops] for step in steps])
        measured = np.array([self._seconds(step, busy) for step in steps])
        overhead, per_operation = collective_model.least_squares(rows / measured[:, None])
        return overhead + per_operation * flops
