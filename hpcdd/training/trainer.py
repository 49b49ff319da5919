"""Training of one network, alone or shared between ranks: what all phases have in common.

The messages, if any, are those of the network itself (:mod:`hpcdd.parallel.subdomain_sum`) and of the share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from ..config.schema import TrainingSettings
from ..core.errors import DivergedError, StopRequest
from ..core.seeding import WHOLE, seed_of
from ..data.samples import AnySamples, Batches
from ..models.batch_context import BatchContext
from ..models.batched_networks import BatchedNetworks
from ..mpi.library import is_loss
from ..parallel.batch_shards import BatchSharing
from ..parallel.gradient_averaging import GradientAverage
from ..parallel.shared_layers import shared_layers
from .checkpoints.manager import NullCheckpointManager
from .optimizers import advance, make_optimizer, make_schedule
from .random_streams import RandomStreams
from .status import Hooks, RunningMetrics
from .step_timing import EVALUATION, part
from .training_state import EarlyStopping, OptimizerMemory, State


class Steps:
    """One training step after the other, with its messages; a context manager.

    Args:
        network: maps a batch of inputs to logits (b, K).
        optimizer: of its parameters.
        share: with whom batches are shared.
        alike: parameters of ``network`` that ranks beyond the share have as well, see :class:`GradientAverage`.
        bf16: mixed precision by autocast.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        share: BatchSharing,
        alike: Sequence[nn.Parameter] = (),
        bf16: bool = False,
    ) -> None:
        self._network, self._optimizer, self._share, self._bf16 = network, optimizer, share, bf16
        self._gradients = GradientAverage(network, share, alike)
        self._stack, self._context = ExitStack(), BatchContext()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._gradients)
        self._context = self._stack.enter_context(shared_layers(self._network, self._share))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self, samples: Batches, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One step on this rank's share of a batch. Behind it all its ranks see what the share's flag has brought.

        Args:
            samples: the training split.
            batch: int64 (b,), which of them.

        Returns:
            Mean loss, logits (rows, K) and labels (rows,) of this rank's rows.

        Raises:
            DivergedError: on all its ranks, if the flag brings that; no parameter has changed then.
        """
        self._share.flag.piggybacked()
        shard = self._share.shard(batch)
        with part("input"):
            inputs, labels = samples.batch(shard.samples)
        with self._context.of(shard):
            with part("forward"), torch.autocast(labels.device.type, torch.bfloat16, enabled=self._bf16):
                logits = self._network(inputs)
                loss = functional.cross_entropy(logits, labels)
            with part("backward"):
                self._optimizer.zero_grad(set_to_none=True)
                # Not as the gradient of backward(): checking that, torch imports what it knows of symbolic shapes.
                (loss * shard.weight).backward()  # type: ignore[no-untyped-call]
                self._gradients.finish()
        self._share.flag.check_divergence()
        with part("optimizer"):
            self._optimizer.step()
        return loss, logits, labels


def train(
    network: nn.Module,
    training: AnySamples,
    validation: AnySamples | None,
    settings: TrainingSettings,
    *,
    seed: int,
    phase: str,
    subdomain: int = WHOLE,
    parts: Mapping[int, nn.Module] | None = None,
    stacks: Sequence[BatchedNetworks] = (),
    share: BatchSharing | None = None,
    alike: Sequence[nn.Parameter] = (),
    bf16: bool = False,
    hooks: Hooks | None = None,
    manager: NullCheckpointManager | None = None,
) -> int:
    """Minimises the mean cross-entropy over the training split; ``network`` is trained in place.

    Every epoch visits the samples in a new order and in new views, and drops the last, smaller batch. All random
    numbers come from (seed, purpose, subdomain, epoch), so that the result depends on nothing that ran before on this
    rank; the views do not depend on the subdomain.

    With a keeper the training goes on from its newest checkpoint, if there is one, and ends with the bits that it
    would have had without the break.

    Args:
        network: maps a batch of inputs to logits (b, K); on the samples' device.
        training: the training split.
        validation: the validation split, for the record and for early stopping; None where there is none.
        settings: the phase's section of the configuration.
        seed: the run's seed.
        phase: name for records and streams.
        subdomain: s, or :data:`hpcdd.core.seeding.WHOLE`.
        parts: by subdomain the modules inside ``network`` that have random streams of their own; default: all of it
            belongs to ``subdomain``.
        stacks: of CNNs inside ``network`` that compute together; their subdomains are none of ``parts``.
        share: with whom batches are shared, and the flag that rides in the messages; default: nobody.
        alike: parameters of ``network`` that ranks beyond the share have as well, see :class:`GradientAverage`.
        bf16: mixed precision by autocast.
        hooks: see :class:`Hooks`.
        manager: of its checkpoints; default: none.

    Returns:
        The number of steps in this job.

    Raises:
        DivergedError: the loss is NaN or infinite; on all ranks that train together, at the same step.
        StopRequest: from ``hooks.step``, or from the share's flag behind the same step on all ranks that share it; the
            state is saved. So it is where another rank has died, if this one trains alone.
    """
    hooks, share, manager = hooks or Hooks(), share or BatchSharing(), manager or NullCheckpointManager()
    device = training.labels.device
    optimizer = make_optimizer(network, settings, stacks)
    running = RunningMetrics(phase, subdomain, settings, len(training), device)
    schedule = make_schedule(optimizer, settings, running.steps_per_epoch * settings.epochs)
    patience = EarlyStopping(settings.early_stopping)
    generators = {s: generator for stack in stacks for s, generator in stack.generators.items()}
    streams = RandomStreams(parts or {subdomain: network}, device, generators)
    where = {parameter: place for stack in stacks for parameter, place in stack.where.items()}
    state = State(network, OptimizerMemory(network, optimizer, where), streams, running, patience, share)
    if (saved := manager.load()) is not None:
        state.restore(saved)
        advance(schedule, running.steps_in_all)
        hooks.history(running.history)
    before, masks = running.steps_in_all, f"{phase} dropout"
    if share.stream:  # a checkpoint has the first rank's random states
        streams.begin(seed, f"{masks} from step {before}{share.stream}", running.epoch)

    def save() -> None:
        manager.save(state.snapshot, running.steps_in_all - before)

    try:
        with share.flag.in_training(manager.overdue), streams, Steps(network, optimizer, share, alike, bf16) as steps:
            while running.epoch < settings.epochs and not patience.exhausted:
                network.train()
                epoch, first = running.epoch, running.steps
                if not first:
                    streams.begin(seed, masks + share.stream, epoch)
                order_seed = seed_of(seed, f"{phase} order", subdomain=subdomain, epoch=epoch)
                view_seed = seed_of(seed, f"{phase} augmentation", epoch=epoch)
                with training.epoch(order_seed, view_seed, first * running.batch_size) as (order, seen):
                    for batch in torch.split(order, running.batch_size)[first : running.steps_per_epoch]:
                        hooks.step()
                        running.learning_rate = optimizer.param_groups[0]["lr"]
                        if hooks.due():
                            try:
                                hooks.status(running.status())
                            except DivergedError as error:  # the others hear of it by this step's messages
                                share.flag.diverge(str(error))
                        running.add(*steps.step(seen, batch))
                        schedule.step()
                        if share.flag.save:
                            save()
                        share.flag.check(phase)

                with hooks.evaluation():
                    share.average_buffers(network)
                    running.sums = share.sum(running.sums)
                    if validation is not None:
                        running.validation = evaluate(network, validation, settings.evaluation_batch, hooks.step, share)
                    running.take(hooks.agree(running.ending(share.flag.reason)))
                patience.take(running.validation[1], network)
                hooks.epoch(running.end_epoch(last=patience.exhausted))
                if patience.exhausted or running.epoch == settings.epochs or manager.due(running.epoch):
                    save()
            hooks.step()
    except Exception as error:
        if isinstance(error, StopRequest) or (manager.alone and is_loss(error)):
            save()
        raise
    patience.restore(network)
    return running.steps_in_all - before


def logits_of(
    network: nn.Module,
    samples: AnySamples,
    batch: int,
    step: Callable[[], None] = lambda: None,
    share: BatchSharing | None = None,
) -> torch.Tensor:
    """The network's decisions on a whole split, in evaluation mode and float32.

    Args:
        network: maps a batch of inputs to logits (b, K), or to anything of shape (b, F).
        samples: n samples.
        batch: how many at a time, see :attr:`hpcdd.config.schema.TrainingSettings.evaluation_batch`; ranks that share
            them take a part each, as in a training.
        step: called before each batch.
        share: ranks that have copies of the network compute a part each.

    Returns:
        float32 (n, K) on the CPU of every rank.
    """
    share = share or BatchSharing()
    rows, each = share.part_of(len(samples)), share.most_of(batch)
    network.eval()
    found = []
    with torch.inference_mode():
        # A share without rows takes part with an empty batch: others may wait for its messages.
        for start in range(rows.start, max(rows.stop, rows.start + 1), each):
            step()
            with part(EVALUATION):
                inputs, _ = samples.batch(slice(start, min(start + each, rows.stop)))
                found.append(network(inputs).float())
    return share.all_gather(torch.cat(found).cpu(), len(samples))


def evaluate(
    network: nn.Module,
    samples: AnySamples,
    batch: int,
    step: Callable[[], None] = lambda: None,
    share: BatchSharing | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on a split, in evaluation mode; arguments as for :func:`logits_of`."""
    logits, labels = logits_of(network, samples, batch, step, share), samples.labels.cpu()
    accuracy = (logits.argmax(1) == labels).float().mean()
    return float(functional.cross_entropy(logits, labels)), float(accuracy)
