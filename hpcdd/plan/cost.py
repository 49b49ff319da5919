"""Seconds of each phase of a run, and its efficiency on any number of ranks.

A phase takes

    local     max over ranks of  sum over the rank's CNNs of  epochs (steps t(CNN) + v e(CNN)) + n e(CNN)
    gather    the messages that bring what the DNN sees, such as n S K logits, to root
    dnn       epochs steps t(DNN) on root; or distributed epochs steps (t(head) + messages)
    coherent  epochs (steps (max over ranks of sum of t(CNN) + t(head) + messages) + v e(CNNs))
    global    epochs (steps (t(CNN) + messages) + v e(CNN))

with t a training step on this rank's rows of a batch, e the evaluation of one sample, v validation samples and n those
of all splits. The efficiency on N ranks is T(1) / (N T(N)), T being the sum over all phases; weakly, with a problem
that grows with N, it is T(1) / T(N). Not in T: starting, reading, what torch loads and compiles at the first step,
checkpoints, and the evaluation of the finished models. Messages don't overlap with the computation here, although
gradients of replicas do in part; so their times are upper bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..config.schema import TrainingSettings
from ..core.names import PhaseName, coherent_phase
from ..data.problem import problem_of_shards
from ..decomposition.boxes import split_evenly
from ..decomposition.rank_layout import assign
from . import messages
from .clock import Clock
from .messages import Message, SimulatedLayout
from .workload import Precision


@dataclass(frozen=True)
class Phase:
    """What one phase costs on its slowest rank.

    Attributes:
        name: as in results.json.
        steps: training steps of one network; 0 for the gather.
        compute: seconds of a step without its messages, of all CNNs of the rank.
        sending: seconds of a step's messages; of all of them for the gather.
        evaluating: seconds of all evaluations within the phase.
    """

    name: PhaseName
    steps: int
    compute: float
    sending: float
    evaluating: float

    @property
    def seconds(self) -> float:
        """Of the phase."""
        return max(1, self.steps) * (self.compute + self.sending) + self.evaluating


class PlannedCosts:
    """Seconds of the phases of one run on one machine.

    Args:
        clock: of the machine, with the run's workload.

    Attributes:
        clock: see above.
        subdomains: S.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock, self._workload = clock, clock.workload
        self._config, self._problem = clock.workload.config, clock.workload.problem
        self.subdomains = len(self._problem.decomposition)
        self._validation = self._problem.samples.get("validation", 0)

    def phases(self, ranks: int) -> list[Phase]:
        """All phases of the run on that many ranks, in their order.

        Raises:
            UserError: the machine file lacks a time.
        """
        config, problem = self._config, self._problem
        layout = SimulatedLayout.of(self.subdomains, ranks)
        busy = min(layout.workers, self.clock.ranks_per_host)
        owned = [block for block, replica in assign(self.subdomains, ranks) if block and not replica]
        phases = [self._local(owned, layout.replicas, busy, messages.local_step(config, problem, ranks), ranks)]
        if gathered := messages.gather(config, problem, ranks):
            phases.append(self._gather(gathered, ranks))
        most = max(len(block) for block in owned)
        inputs = sum(problem.feature_widths(config.aggregation.features))
        phases.append(self._dnn(inputs, most, busy, messages.dnn_step(config, problem, ranks), ranks))
        if config.coherent.starts:
            sent = messages.coherent_step(config, problem, ranks)
            if config.coherent.parallelism == "data":
                owned, shards = [range(self.subdomains)], layout.workers
            else:
                shards = layout.replicas
            phases += self._coherent(owned, shards, busy, sent, ranks)
        if config.baseline.enabled:
            phases.append(self._global(layout, busy, ranks))
        return phases

    def can_shard(self, layout: SimulatedLayout) -> bool:
        """Whether batches have enough samples to be sharded over the ranks."""
        return not problem_of_shards(self._config, self._problem, layout.workers, layout.replicas)

    @property
    def grows_with_ranks(self) -> bool:
        """Whether :meth:`weak` describes the run: in a data-parallel coherent phase, each rank has all CNNs, and the
        global CNN has the whole image, so that neither grows by a rank's subdomains.
        """
        config = self._config
        return not config.baseline.enabled and not (config.coherent.starts and config.coherent.parallelism == "data")

    def weak(self, ranks: int, per_rank: int) -> list[Phase]:
        """As :meth:`phases`, of a problem that grows: each rank has the first ``per_rank`` subdomains of this one.
        Needs :attr:`grows_with_ranks`.
        """
        config, problem = self._config, self._problem
        busy, owned = min(ranks, self.clock.ranks_per_host), [range(per_rank)]
        inputs = ranks * sum(problem.feature_widths(config.aggregation.features)[:per_rank])
        phases, distributed = [self._local(owned, 1, busy, [], ranks)], config.aggregation.placement == "distributed"
        if not distributed:
            size = 4 * inputs * sum(problem.samples.values())
            phases.append(self._gather([Message("gather", size, ranks, size, "local outputs")], ranks))
        rows = self._rows(config.aggregation, 1)
        sent = [messages.sum_over_subdomains(config, config.aggregation, problem, rows, ranks)] if distributed else []
        phases.append(self._dnn(inputs, per_rank, busy, sent, ranks))
        if config.coherent.starts:
            rows = self._rows(config.coherent, 1)
            sent = [messages.sum_over_subdomains(config, config.coherent_dnn, problem, rows, ranks)]
            phases += self._coherent(owned, 1, busy, sent, ranks)
        return phases

    def _local(
        self, owned: Iterable[Sequence[int]], shards: int, busy: int, sent: Sequence[Message], ranks: int
    ) -> Phase:
        settings, samples = self._config.local, sum(self._problem.samples.values())
        rows, steps = self._rows(settings, shards), self._steps(settings)
        evaluated = (settings.epochs * self._validation + samples) / shards
        compute, evaluating = max(
            (self._cnns(block, rows, settings.computed_in, busy), evaluated * self._evaluation(block, settings, busy))
            for block in owned
        )
        sending = self.clock.messages(sent, ranks)
        return Phase("local", steps, compute, sending, evaluating)

    def _gather(self, sent: Sequence[Message], ranks: int) -> Phase:
        return Phase("gather", 0, 0.0, self.clock.messages(sent, ranks), 0.0)

    def _dnn(self, inputs: int, per_rank: int, busy: int, sent: Sequence[Message], ranks: int) -> Phase:
        settings = self._config.aggregation
        rows = self._rows(settings, 1)
        if settings.placement == "root":
            compute = self.clock.work(self._workload.dnn(rows, inputs), 1)
        else:
            compute = self.clock.work(self._workload.head(per_rank, rows, coherent=False), busy)
        sending = self.clock.messages(sent, ranks)
        return Phase("dnn", self._steps(settings), compute, sending, 0.0)

    def _coherent(
        self, owned: Iterable[Sequence[int]], shards: int, busy: int, sent: Sequence[Message], ranks: int
    ) -> list[Phase]:
        settings = self._config.coherent
        rows, steps, seen = self._rows(settings, shards), self._steps(settings), settings.epochs * self._validation
        compute, evaluating = max(
            (
                self._cnns(block, rows, settings.computed_in, busy)
                + self.clock.work(self._workload.head(len(block), rows, coherent=True), busy),
                seen / shards * self._evaluation(block, settings, busy),
            )
            for block in owned
        )
        sending = self.clock.messages(sent, ranks)
        return [Phase(coherent_phase(start), steps, compute, sending, evaluating) for start in settings.starts]

    def _global(self, layout: SimulatedLayout, busy: int, ranks: int) -> Phase:
        settings, clock, workload = self._config.baseline, self.clock, self._workload
        sent = messages.global_step(self._config, self._problem, ranks)
        compute = clock.work(workload.global_cnn(self._rows(settings, layout.workers)), busy)
        batch = settings.evaluation_batch
        of_sample = clock.work(workload.global_evaluation(batch), busy) / batch
        evaluating = settings.epochs * self._validation / layout.workers * of_sample
        sending = clock.messages(sent, ranks)
        return Phase("global", self._steps(settings), compute, sending, evaluating)

    def _cnns(self, subdomains: Sequence[int], rows: int, precision: Precision, busy: int) -> float:
        """Seconds of a training step of some CNNs."""
        work, groups = self._workload, self._problem.by_shape(subdomains)
        return sum(len(same) * self.clock.work(work.local_cnn(same[0], rows, precision), busy) for same in groups)

    def _evaluation(self, subdomains: Sequence[int], settings: TrainingSettings, busy: int) -> float:
        """Seconds in which some CNNs evaluate one sample."""
        work, batch = self._workload, settings.evaluation_batch
        augmentation = self._problem.augmentation
        flips = len(augmentation.flips) if augmentation is not None and augmentation.test_flip else 1
        groups = self._problem.by_shape(subdomains)
        seconds = sum(len(same) * self.clock.work(work.local_evaluation(same[0], batch), busy) for same in groups)
        return flips * seconds / batch

    def _rows(self, settings: TrainingSettings, shards: int) -> int:
        """Samples of a batch on the rank that has most of it."""
        return split_evenly(settings.batch_of(self._problem.samples["train"]), shards)[0][1]

    def _steps(self, settings: TrainingSettings) -> int:
        return settings.epochs * settings.steps_per_epoch(self._problem.samples["train"])


def total(phases: Iterable[Phase]) -> float:
    """Seconds of some phases, one after the other."""
    return sum(phase.seconds for phase in phases)
