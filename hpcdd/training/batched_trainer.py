"""Local CNNs of one shape that a rank trains together: a step is one of all of them
(:mod:`hpcdd.models.batched_networks`).

Each becomes what it would have become by itself, to rounding: its batches, views, random numbers, schedule, early
stopping and record are its own. So are its checkpoints, which a training of it alone goes on from, and the other way
round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ..config.schema import LocalSettings
from ..core.errors import StopRequest
from ..core.seeding import seed_of
from ..data.samples import AnySamples, Batches, Samples
from ..models.batched_networks import BatchedNetworks
from ..mpi.library import is_loss
from ..parallel.batch_shards import BatchSharing
from . import cuda_graphs, step_timing
from .checkpoints.manager import NullCheckpointManager
from .checkpoints.snapshot import Position, Snapshot
from .optimizers import advance, make_optimizer, make_schedule
from .random_streams import RandomStreams
from .status import Hooks, RunningMetrics
from .step_timing import part
from .trainer import evaluate
from .training_state import EarlyStopping, OptimizerMemory, State


@dataclass(frozen=True)
class Member:
    """One of the CNNs.

    Attributes:
        subdomain: s.
        network: of hpcdd's own families, on the samples' device; trained in place.
        training, validation: its splits.
        manager: of its checkpoints.
    """

    subdomain: int
    network: nn.Module
    training: AnySamples
    validation: AnySamples | None
    manager: NullCheckpointManager


def train_together(members: Sequence[Member], settings: LocalSettings, *, seed: int, hooks: Hooks) -> dict[int, int]:
    """Trains CNNs of one shape as :func:`hpcdd.training.trainer.train` trains each; no message.

    Those that go on from checkpoints at different places are trained in groups, one for each place. Who stops early
    leaves; the others go on.

    Args:
        members: with as many training samples each.
        settings: of the phase.
        seed: the run's seed.
        hooks: called for each of them in turn, but ``step``, once for a step of all.

    Returns:
        By subdomain the number of steps in this job.

    Raises:
        DivergedError: the loss of one of them is NaN or infinite.
        StopRequest: from ``hooks.step``; the states of all are saved.
    """
    saved: dict[int, Snapshot] = {}
    places: dict[Position, list[Member]] = {}
    for member in members:
        found = member.manager.load()
        member.manager.count(0)
        if found is not None:
            saved[member.subdomain] = found
        places.setdefault(Position(0, 0) if found is None else found.position, []).append(member)
    steps: dict[int, int] = {}
    for _, group in sorted(places.items(), key=lambda item: item[0]):
        steps |= _train(group, saved, settings, seed, hooks)
    return {member.subdomain: steps[member.subdomain] for member in members}


def _train(
    members: list[Member], saved: Mapping[int, Snapshot], settings: LocalSettings, seed: int, hooks: Hooks
) -> dict[int, int]:
    """Those at one place."""
    before: dict[int, int] = {}
    steps: dict[int, int] = {}
    while members:
        group = _Group(members, settings, seed, hooks)
        group.restore(saved, tell=not before)
        before = before or dict(zip([m.subdomain for m in members], group.steps, strict=True))
        group.run(before)
        for member, state, number in zip(members, group.states, group.steps, strict=True):
            member.manager.count(0)
            if state.patience.exhausted or group.complete:
                state.patience.restore(member.network)
                steps[member.subdomain] = number - before[member.subdomain]
        saved = group.snapshots()
        members = [member for member in members if member.subdomain not in steps]
    return steps


class _Group:
    """CNNs that are trained together until one of them, or all, come to their end."""

    def __init__(self, members: Sequence[Member], settings: LocalSettings, seed: int, hooks: Hooks) -> None:
        self._members, self._settings, self._seed, self._hooks = members, settings, seed, hooks
        self._stack = BatchedNetworks({member.subdomain: member.network for member in members})
        self._optimizer = make_optimizer(self._stack, settings)
        training = members[0].training
        self._device = training.labels.device
        self._running = [
            RunningMetrics("local", member.subdomain, settings, len(training), self._device) for member in members
        ]
        self._sums = torch.zeros(len(members), 3, dtype=torch.float64, device=self._device)
        self._seen: Sequence[Batches] = []
        self._replayed: Sequence[Samples] | None = None
        self._compute: Callable[[torch.Tensor], None] = self._gradients
        epoch_steps = self._running[0].steps_per_epoch
        self._schedule = make_schedule(self._optimizer, settings, epoch_steps * settings.epochs)
        self.states = [
            State(
                member.network,
                OptimizerMemory(member.network, self._optimizer, self._stack.where),
                RandomStreams({}, self._device, {member.subdomain: self._stack.generators[member.subdomain]}),
                running,
                EarlyStopping(settings.early_stopping),
                BatchSharing(),
            )
            for member, running in zip(members, self._running, strict=True)
        ]

    @property
    def steps(self) -> list[int]:
        """Steps of each since its training began."""
        return [running.steps_in_all for running in self._running]

    @property
    def complete(self) -> bool:
        """Whether all epochs are done."""
        return self._running[0].epoch == self._settings.epochs

    def restore(self, saved: Mapping[int, Snapshot], *, tell: bool) -> None:
        """Goes on from snapshots; ``tell``: of what earlier jobs did."""
        for member, state in zip(self._members, self.states, strict=True):
            if member.subdomain in saved:
                state.restore(saved[member.subdomain])
                if tell:
                    self._hooks.history(state.running.history)
            member.manager.count(1 / len(self._members))
        advance(self._schedule, self._running[0].steps_in_all)

    def snapshots(self) -> dict[int, Snapshot]:
        """Of all."""
        return {member.subdomain: state.snapshot() for member, state in zip(self._members, self.states, strict=True)}

    def run(self, before: Mapping[int, int]) -> None:
        """Trains; ``before``: by subdomain the steps of earlier jobs."""

        def save(number: int) -> None:
            member = self._members[number]
            steps = self._running[number].steps_in_all - before[member.subdomain]
            member.manager.save(self.states[number].snapshot, steps)

        def save_overdue() -> None:
            for number, member in enumerate(self._members):
                if member.manager.overdue():
                    save(number)

        try:
            while not self.complete and not any(state.patience.exhausted for state in self.states):
                self._epoch(save_overdue)
                self._evaluate()
                for number, (member, state) in enumerate(zip(self._members, self.states, strict=True)):
                    running = state.running
                    state.patience.take(running.validation[1], member.network)
                    over = state.patience.exhausted
                    self._hooks.epoch(running.end_epoch(last=over))
                    if over or running.epoch == self._settings.epochs or member.manager.due(running.epoch):
                        save(number)
            self._hooks.step()
        except Exception as error:
            if isinstance(error, StopRequest) or is_loss(error):
                for number in range(len(self._members)):
                    save(number)
            raise

    def _epoch(self, save_overdue: Callable[[], None]) -> None:
        meters, hooks = self._running, self._hooks
        epoch, first, size = meters[0].epoch, meters[0].steps, meters[0].batch_size
        if not first:
            for state in self.states:
                state.streams.begin(self._seed, "local dropout", epoch)
        view_seed = seed_of(self._seed, "local augmentation", epoch=epoch)
        with ExitStack() as stack:
            entered = []
            for member in self._members:
                order_seed = seed_of(self._seed, "local order", subdomain=member.subdomain, epoch=epoch)
                entered.append(stack.enter_context(member.training.epoch(order_seed, view_seed, first * size)))
            self._see([samples for _, samples in entered])
            self._join_sums()
            orders = torch.stack([order for order, _ in entered])
            for batches in torch.split(orders, size, dim=1)[first : meters[0].steps_per_epoch]:
                hooks.step()
                for running in meters:
                    running.learning_rate = self._optimizer.param_groups[0]["lr"]
                if hooks.due():
                    for running in meters:
                        hooks.status(running.status())
                self._compute(batches)
                with part("optimizer"):
                    self._optimizer.step()
                for running in meters:
                    running.steps += 1
                self._schedule.step()
                save_overdue()

    def _see(self, seen: Sequence[Batches]) -> None:
        """Takes an epoch's samples for the steps that come."""
        recorder = cuda_graphs.recorder_of(self._device, list(self._stack.generators.values()))
        fixed = [samples for samples in seen if isinstance(samples, Samples) and samples.fixed]
        if recorder is None or len(fixed) < len(seen) or step_timing.measured():
            self._seen, self._compute = seen, self._gradients
        elif self._replayed is None:
            self._seen, self._compute = seen, cuda_graphs.Replayed(self._gradients, recorder)
            self._replayed = fixed
        else:  # what was recorded goes on with this epoch's views
            for ours, new in zip(self._replayed, fixed, strict=True):
                ours.renew(new)

    def _gradients(self, batches: torch.Tensor) -> None:
        """Loss and gradients of all, and their meters; the same tensors in every step.

        Args:
            batches: int64 (S, b), which of each one's training samples.
        """
        bf16 = self._settings.precision == "bf16"
        with part("input"):
            found = [samples.batch(batch) for samples, batch in zip(self._seen, batches, strict=True)]
            inputs, labels = torch.stack([images for images, _ in found]), torch.stack([its for _, its in found])
        with part("forward"), torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            logits = self._stack(inputs)
            each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            losses = each.view(labels.shape).mean(1)
        with part("backward"):
            self._optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()  # type: ignore[no-untyped-call]  # one's loss does not depend on the others
        size = labels.shape[1]
        hits = (logits.detach().argmax(2) == labels).sum(1)
        self._sums += torch.stack([losses.detach() * size, hits, torch.full_like(losses, size)], dim=1)

    def _evaluate(self) -> None:
        for member, running in zip(self._members, self._running, strict=True):
            if member.validation is not None:
                with self._hooks.evaluation():
                    running.validation = evaluate(
                        member.network, member.validation, self._settings.evaluation_batch, self._hooks.step
                    )

    def _join_sums(self) -> None:
        """The meters' sums in one tensor, (S, 3): what is added there they have."""
        self._sums.copy_(torch.stack([running.sums for running in self._running]))
        for running, row in zip(self._running, self._sums, strict=True):
            running.sums = row
