"""How long a piece of work or a message takes, from a machine file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import UserError
from .machine import Machine, MeasuredStep
from .messages import Message
from .work import Work, Workload

MEASURED, BETWEEN, SCALED = "measured", "between measured sizes", "scaled by operations"


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

    def crowd(self, busy: int) -> float:
        """By how much threads slow each other down on a host where so many ranks work: threads per core, at least 1."""
        return max(1.0, busy * self.threads / self.machine.host.cores) if self.device == "cpu" else 1.0

    def work(self, work: Work, busy: int) -> float:
        """Seconds of a piece of work while ``busy`` ranks work on its host.

        A time that was measured for the very same work; else between or beyond the batches (and summands) that were
        measured for the network, by least squares of c0 + c1 batch + c2 batch (summands - 1); else that of the work of
        its kind with the nearest number of floating point operations, in proportion to them.

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
        alike = self._nearest_busy([step for step in kind if step.network == work.network], busy)
        exact = [step for step in alike if (step.batch, step.summands) == (work.batch, work.summands)]
        if exact:
            seconds, basis = self._seconds(exact[0], busy), MEASURED
        elif len(alike) > 1:
            seconds, basis = self._fitted(alike, work, busy), BETWEEN
        else:
            flops = self.workload.simulated(work).flops
            nearest = min(self._nearest_busy(kind, busy), key=lambda step: abs(np.log(step.flops / flops)))
            seconds, basis = self._seconds(nearest, busy) * flops / nearest.flops, SCALED
        self.bases.setdefault(f"{work.kind}, {work.network}", basis)
        return seconds

    def messages(self, messages: Iterable[Message], ranks: int) -> float:
        """Seconds of some messages of a job of ``ranks`` ranks, one after the other.

        Raises:
            UserError: the machine file has no model of a collective.
        """
        seconds, between = 0.0, ranks > self.ranks_per_host
        crowded = min(ranks, self.ranks_per_host) * self.threads > self.machine.host.cores
        for message in messages:
            if message.ranks < 2:
                continue
            found, exact = self.machine.fit_of(message.collective, between_hosts=between, crowded=crowded)
            if found is None:
                raise UserError(
                    f"the machine file has no model of {message.collective}; add it by `mpirun -n N hpcdd bench "
                    "collectives [CONFIG] --output FILE`"
                )
            if not exact:
                where = "between hosts" if between else "within a host"
                how = " whose ranks share cores" if crowded else ""
                self.notes[
                    f"messages {where}{how}: not in the machine file; times are those "
                    f"{'between hosts' if found.between_hosts else 'within a host'}"
                    f"{' whose ranks share cores' if found.crowded else ' with a core for each rank'}"
                ] = None
            seconds += message.number * found.model.seconds(message.size, message.ranks)
        return seconds

    def _nearest_busy(self, steps: Sequence[MeasuredStep], busy: int) -> list[MeasuredStep]:
        """Those that were measured while as many ranks worked on a host, else while the next fewer did, else more."""
        if not steps:
            return []
        counts = {step.busy for step in steps}
        fewer = [count for count in counts if count <= busy]
        chosen = max(fewer) if fewer else min(counts)
        return [step for step in steps if step.busy == chosen]

    def _seconds(self, step: MeasuredStep, busy: int) -> float:
        return step.seconds[1] * self.crowd(busy) / self.crowd(step.busy)

    def _fitted(self, steps: Sequence[MeasuredStep], work: Work, busy: int) -> float:
        measured = np.array([self._seconds(step, busy) for step in steps])
        rows = np.array([_terms(step.batch, step.summands) for step in steps])
        factors = np.linalg.lstsq(rows / measured[:, None], np.ones(len(steps)), rcond=None)[0]
        found = float(_terms(work.batch, work.summands) @ factors)
        # Noise may let a line through two measured times fall below zero; no less than in proportion to the least.
        least = min(steps, key=lambda step: step.batch)
        return max(found, self._seconds(least, busy) * min(1.0, work.batch / least.batch) / 2)


def _terms(batch: int, summands: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([1.0, batch, batch * (summands - 1)])
