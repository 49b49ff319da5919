"""The training loop of all phases: epochs, checkpoints, early stopping and records of S >= 1 networks.

A network is trained by itself, with ranks that share its batches (:func:`train`), or with others of its shape, which
take every step together (:func:`train_batched`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from ..config.schema import LocalSettings, TrainingSettings
from ..core.errors import DivergedError, StopRequest
from ..core.names import TrainingName
from ..core.seeding import WHOLE, seed_of
from ..data.samples import AnySamples, AugmentationSeed
from ..models.batched_networks import BatchedNetworks
from ..mpi.runtime import is_loss
from ..parallel.batch_shards import BatchSharing
from .checkpoints.manager import NullCheckpointManager
from .checkpoints.snapshot import Position, Snapshot
from .optimizers import advance, make_optimizer, make_schedule
from .random_streams import RandomStreams
from .split_evaluation import evaluate
from .status import Ending, Hooks, RunningMetrics
from .steps import BatchedSteps, PlainSteps
from .training_state import EarlyStopping, OptimizerMemory, State
from .weight_average import WeightAverage


@dataclass(frozen=True)
class Member:
    """One of the networks that are trained.

    Attributes:
        subdomain: s, or :data:`hpcdd.core.seeding.WHOLE`.
        network: maps a batch of inputs to logits (b, K); on the samples' device; trained in place.
        training: the training split.
        validation: the validation split, for the record and for early stopping; None where there is none.
        manager: of its checkpoints.
    """

    subdomain: int
    network: nn.Module
    training: AnySamples
    validation: AnySamples | None
    manager: NullCheckpointManager


def train(
    network: nn.Module,
    training: AnySamples,
    validation: AnySamples | None,
    settings: TrainingSettings,
    *,
    seed: int,
    phase: TrainingName,
    subdomain: int = WHOLE,
    parts: Mapping[int, nn.Module] | None = None,
    stacks: Sequence[BatchedNetworks] = (),
    sharing: BatchSharing | None = None,
    replicated: Sequence[nn.Parameter] = (),
    continues: bool = False,
    hooks: Hooks | None = None,
    manager: NullCheckpointManager | None = None,
) -> int:
    """Minimises the mean cross-entropy over the training split; ``network`` is trained in place.

    Every epoch visits the samples in a new order, newly augmented, and drops the last, smaller batch. All random
    numbers come from (seed, purpose, subdomain, epoch), so that the result depends on nothing that ran before on this
    rank; the augmentation does not depend on the subdomain.

    With a manager the training resumes from its newest checkpoint, if there is one, and ends with the bits that it
    would have had without the break.

    Args:
        network, training, validation, subdomain, manager: see :class:`Member`; default: no checkpoints.
        settings: the phase's section of the configuration.
        seed: the run's seed.
        phase: name for records and streams.
        parts: by subdomain the modules inside ``network`` that have random streams of their own; default: all of it
            belongs to ``subdomain``.
        stacks: of CNNs inside ``network`` that compute together; their subdomains are not in ``parts``.
        sharing: with whom batches are shared, and the flag that is piggybacked on the messages; default: nobody.
        replicated: parameters of ``network`` that ranks beyond these have as well, see :class:`GradientAverage`.
        continues: whether early stopping may keep the network as it is now, if no epoch is better.
        hooks: see :class:`Hooks`.

    Returns:
        The number of steps in this job.

    Raises:
        DivergedError: the loss is NaN or infinite; on all ranks that train together, at the same step.
        StopRequest: from ``hooks.step``, or from the flag of ``sharing``, behind the same step on all of its ranks; the
            state is saved. So it is where another rank has died, if this one trains alone.
    """
    sharing, device = sharing or BatchSharing(), training.labels.device
    optimizer = make_optimizer(network, settings, stacks)
    generators = {s: generator for stack in stacks for s, generator in stack.generators.items()}
    where = {parameter: leaf_slice for stack in stacks for parameter, leaf_slice in stack.where.items()}
    state = State(
        network,
        OptimizerMemory(network, optimizer, where),
        RandomStreams(parts or {subdomain: network}, device, generators),
        RunningMetrics(phase, subdomain, settings, len(training), device),
        EarlyStopping(settings.early_stopping),
        sharing,
        WeightAverage(settings.ema),
    )
    steps = PlainSteps(network, optimizer, sharing, settings, replicated)
    member = Member(subdomain, network, training, validation, manager or NullCheckpointManager())

    def group(members: Sequence[Member]) -> _Group:
        return _Group(members, [state], steps, settings, seed, phase, hooks or Hooks(), continues=continues)

    return _train_groups([member], group)[subdomain]


def train_batched(members: Sequence[Member], settings: LocalSettings, *, seed: int, hooks: Hooks) -> dict[int, int]:
    """Trains local CNNs of one shape as :func:`train` trains each, a step of all at a time; no message.

    Each becomes what it would have become by itself, to rounding: its batches, augmentation, random numbers, schedule,
    early stopping and record are its own. So are its checkpoints, from which a training of it alone resumes, and the
    other way round. Those that resume at different places are trained in groups, one for each place. One that stops
    early leaves its group; the others continue.

    Args:
        members: of hpcdd's own families, with as many training samples each.
        settings: of the phase.
        seed: the run's seed.
        hooks: called for each of them in turn, but ``step``, once for a step of all.

    Returns:
        By subdomain the number of steps in this job.

    Raises:
        DivergedError: the loss of one of them is NaN or infinite.
        StopRequest: from ``hooks.step``; the states of all are saved.
    """

    def group(members: Sequence[Member]) -> _Group:
        stack, sharing = BatchedNetworks({member.subdomain: member.network for member in members}), BatchSharing()
        optimizer = make_optimizer(stack, settings)
        device = members[0].training.labels.device
        states = [
            State(
                member.network,
                OptimizerMemory(member.network, optimizer, stack.where),
                RandomStreams({}, device, {member.subdomain: stack.generators[member.subdomain]}),
                RunningMetrics("local", member.subdomain, settings, len(member.training), device),
                EarlyStopping(settings.early_stopping),
                sharing,
                WeightAverage(settings.ema),
            )
            for member in members
        ]
        steps = BatchedSteps(stack, optimizer, sharing, settings)
        return _Group(members, states, steps, settings, seed, "local", hooks)

    return _train_groups(members, group)


def _train_groups(members: Sequence[Member], group_of: Callable[[Sequence[Member]], _Group]) -> dict[int, int]:
    """Trains members to their ends, those at one place together; by subdomain the number of steps in this job."""
    saved: dict[int, Snapshot] = {}
    places: dict[Position, list[Member]] = {}
    for member in members:
        snapshot = member.manager.load()
        member.manager.count(0)
        if snapshot is not None:
            saved[member.subdomain] = snapshot
        places.setdefault(Position(0, 0) if snapshot is None else snapshot.position, []).append(member)
    steps: dict[int, int] = {}
    for _, present in sorted(places.items(), key=lambda item: item[0]):
        remaining, snapshots, before = present, saved, dict[int, int]()
        while remaining:
            group = group_of(remaining)
            group.restore(snapshots, tell=not before)
            before = before or group.steps
            ended = group.run(before)
            steps |= {s: group.steps[s] - before[s] for s in ended}
            remaining = [member for member in remaining if member.subdomain not in ended]
            if remaining:
                snapshots = group.snapshots()
    return {member.subdomain: steps[member.subdomain] for member in members}


class _Group:
    """Members that take every step together until one of them, or all, come to their end."""

    def __init__(
        self,
        members: Sequence[Member],
        states: Sequence[State],
        steps: PlainSteps | BatchedSteps,
        settings: TrainingSettings,
        seed: int,
        phase: TrainingName,
        hooks: Hooks,
        *,
        continues: bool = False,
    ) -> None:
        self._continues = continues
        self._members, self._states, self._steps, self._settings = members, states, steps, settings
        self._seed, self._phase, self._hooks = seed, phase, hooks
        self._sharing, self._running = states[0].sharing, [state.running for state in states]
        self._pairs = list(zip(members, states, strict=True))
        planned = self._running[0].steps_per_epoch * settings.epochs
        self._schedule = make_schedule(steps.optimizer, settings, planned)

    @property
    def steps(self) -> dict[int, int]:
        """By subdomain the steps since its training began."""
        return {running.subdomain: running.steps_in_all for running in self._running}

    @property
    def _complete(self) -> bool:
        return self._running[0].epoch >= self._settings.epochs

    def restore(self, saved: Mapping[int, Snapshot], *, tell: bool) -> None:
        """Resumes from snapshots, by subdomain; ``tell``: report what earlier jobs did."""
        for member, state in self._pairs:
            if (snapshot := saved.get(member.subdomain)) is not None:
                state.restore(snapshot)
                if tell:
                    self._hooks.history(state.running.history)
            member.manager.count(1 / len(self._members))
        advance(self._schedule, self._running[0].steps_in_all)

    def snapshots(self) -> dict[int, Snapshot]:
        """Of all, by subdomain."""
        return {member.subdomain: state.snapshot() for member, state in self._pairs}

    def run(self, before: Mapping[int, int]) -> set[int]:
        """Trains; ``before``: by subdomain the steps of earlier jobs. Returns the subdomains that are at their end."""
        sharing, streams = self._sharing, [state.streams for state in self._states]

        def save(member: Member, state: State) -> None:
            member.manager.save(state.snapshot, state.running.steps_in_all - before[member.subdomain])

        def overdue() -> bool:
            return any(member.manager.overdue() for member in self._members)

        if sharing.stream:  # a checkpoint has the first rank's random states
            at = self._running[0].steps_in_all
            streams[0].begin(self._seed, f"{self._masks} from step {at}{sharing.stream}", self._running[0].epoch)
        try:
            with ExitStack() as stack:
                stack.enter_context(sharing.flag.in_training(overdue))
                for stream in streams:
                    stack.enter_context(stream)
                stack.enter_context(self._steps)
                if self._continues and self._settings.early_stopping and not self._running[0].steps_in_all:
                    for member, state in self._pairs:
                        self._take_start(member, state)
                while not self._complete and not any(state.early_stopping.exhausted for state in self._states):
                    self._epoch(save)
                    for member, state in self._pairs:  # a stop in here leaves all of them at one place
                        self._evaluate(member, state)
                    for member, state in self._pairs:
                        with state.average.shown(member.network):
                            over = self._end_epoch(member, state)
                        if over or member.manager.due(state.running.epoch):
                            save(member, state)
                self._hooks.step()
        except Exception as error:
            shared = isinstance(error, StopRequest) and error.shared  # otherwise other ranks do not save now
            for member, state in self._pairs:
                if shared or (member.manager.alone and (isinstance(error, StopRequest) or is_loss(error))):
                    save(member, state)
            raise
        ended = set[int]()
        for member, state in self._pairs:
            member.manager.count(0)
            if self._complete or state.early_stopping.exhausted:
                state.average.into(member.network)
                state.early_stopping.load_best(member.network)
                ended.add(member.subdomain)
        return ended

    @property
    def _masks(self) -> str:
        return f"{self._phase} dropout"

    def _epoch(self, save: Callable[[Member, State], None]) -> None:
        """The steps of one epoch, or what is left of it."""
        hooks, flag, optimizer = self._hooks, self._sharing.flag, self._steps.optimizer
        epoch, first, size = self._running[0].epoch, self._running[0].steps, self._running[0].batch_size
        if not first:
            for state in self._states:
                state.streams.begin(self._seed, self._masks + self._sharing.stream, epoch)
        augmentation_seed = augmentation_seed_of(self._seed, self._phase, epoch)
        with ExitStack() as stack:
            entered = []
            for member in self._members:
                order_seed = seed_of(self._seed, f"{self._phase} order", subdomain=member.subdomain, epoch=epoch)
                entered.append(stack.enter_context(member.training.epoch(order_seed, augmentation_seed, first * size)))
            step = self._steps.of_epoch([seen for _, seen in entered], self._running)
            orders = torch.stack([order for order, _ in entered])
            for batches in torch.split(orders, size, dim=1)[first : self._running[0].steps_per_epoch]:
                hooks.step()
                for running in self._running:
                    running.begin_step(optimizer.param_groups[0]["lr"])
                if hooks.due():
                    try:
                        for running in self._running:
                            hooks.status(running.status())
                    except DivergedError as error:  # the others hear of it by this step's messages
                        flag.diverge(str(error))
                step(batches)
                self._schedule.step()
                for member, state in self._pairs:
                    state.average.update(member.network, state.running.steps_in_all)
                if flag.save:
                    for member, state in self._pairs:
                        save(member, state)
                flag.check(self._phase)

    def _evaluate(self, member: Member, state: State) -> None:
        """What all ranks agree on at the end of an epoch: its sums, and loss and accuracy of the validation split."""
        hooks, sharing, running = self._hooks, self._sharing, state.running
        validation: tuple[float, float] | tuple[None, None] = (None, None)
        with hooks.evaluation():
            sharing.average_buffers(member.network)
            sums = sharing.sum(running.sums)
            with state.average.shown(member.network):
                if state.average.state:
                    sharing.average_buffers(member.network)
                if member.validation is not None:
                    batch = self._settings.evaluation_batch
                    validation = evaluate(member.network, member.validation, batch, hooks.step, sharing)
            running.adopt(hooks.agree(running.ending(sums, validation, sharing.flag.reason)))

    def _take_start(self, member: Member, state: State) -> None:
        """Early stopping's first candidate: the network before its first step."""
        assert member.validation is not None  # early stopping needs it
        with self._hooks.evaluation():
            batch = self._settings.evaluation_batch
            _, accuracy = evaluate(member.network, member.validation, batch, self._hooks.step, state.sharing)
        agreed = self._hooks.agree(Ending(self._phase, 0, (0.0,), (0.0, accuracy), None))
        state.early_stopping.observe(agreed.validation[1], member.network)

    def _end_epoch(self, member: Member, state: State) -> bool:
        """Begins the next epoch; whether this was the last."""
        state.early_stopping.observe(state.running.validation[1], member.network)
        over = state.early_stopping.exhausted
        self._hooks.epoch(state.running.end_epoch(last=over))
        return over or state.running.epoch == self._settings.epochs


def augmentation_seed_of(seed: int, phase: TrainingName, epoch: int) -> AugmentationSeed:
    """From what all subdomains draw the augmentation of one epoch.

    Args:
        seed: the run's seed.
        phase: name of the training.
        epoch: number of the epoch, from 0.
    """
    purpose = f"{phase} augmentation"
    return AugmentationSeed(seed_of(seed, purpose, epoch=epoch), seed_of(seed, f"{purpose} of all epochs"), epoch)
