"""Training of one network, alone or shared between ranks: what all phases have in common.

The messages, if any, are those of the network itself (:mod:`hpcdd.parallel.reduction`) and of the share.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from ..config import TrainingSettings
from ..data.samples import AnySamples, Batches
from ..parallel.gradients import GradientAverage
from ..parallel.share import Share
from ..seeding import WHOLE, seed_of
from .optimizers import make_optimizer, make_schedule
from .status import Hooks, Meter
from .streams import Streams

_EVALUATION_BATCH = 512


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
        share: Share,
        alike: Sequence[nn.Parameter] = (),
        bf16: bool = False,
    ) -> None:
        self._network, self._optimizer, self._share, self._bf16 = network, optimizer, share, bf16
        self._gradients = GradientAverage(network, share, alike)

    def __enter__(self) -> Self:
        self._gradients.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._gradients.__exit__()

    def step(
        self, samples: Batches, batch: torch.Tensor, phase: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One step on this rank's share of a batch.

        Args:
            samples: the training split.
            batch: int64 (b,), which of them.
            phase: for the message of a request to stop.

        Returns:
            Mean loss, logits (rows, K) and labels (rows,) of this rank's rows.

        Raises:
            StopRequest: on all ranks of the step alike, before the parameters change.
        """
        self._share.flag.board()
        inputs, labels = samples.batch(self._share.take(batch))
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=self._bf16):
            logits = self._network(inputs)
            loss = functional.cross_entropy(logits, labels)
        self._optimizer.zero_grad(set_to_none=True)
        (loss * self._share.weight).backward()  # type: ignore[no-untyped-call]
        self._gradients.finish()
        self._share.flag.check(phase)
        self._optimizer.step()
        return loss, logits, labels


class _Patience:
    """Early stopping: remembers the parameters of the best epoch, and how long ago that was."""

    def __init__(self, epochs: int | None) -> None:
        self._epochs = epochs
        self._best = -math.inf
        self._waited = 0
        self._state: dict[str, Any] | None = None

    def exhausted(self, accuracy: float | None, network: nn.Module) -> bool:
        """Takes the validation accuracy of one more epoch in."""
        if self._epochs is None or accuracy is None:
            return False
        if accuracy > self._best:
            self._best, self._waited, self._state = accuracy, 0, copy.deepcopy(network.state_dict())
        else:
            self._waited += 1
        return self._waited >= self._epochs

    def restore(self, network: nn.Module) -> None:
        """Gives the network the best epoch's parameters back."""
        if self._state is not None:
            network.load_state_dict(self._state)


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
    share: Share | None = None,
    alike: Sequence[nn.Parameter] = (),
    bf16: bool = False,
    hooks: Hooks | None = None,
) -> int:
    """Minimises the mean cross-entropy over the training split; ``network`` is trained in place.

    Every epoch visits the samples in a new order and in new views, and drops the last, smaller batch. All random
    numbers come from (seed, purpose, subdomain, epoch), so that the result depends on nothing that ran before on this
    rank; the views do not depend on the subdomain.

    Args:
        network: maps a batch of inputs to logits (b, K); on the samples' device.
        training: the training split.
        validation: the validation split, for the record and for early stopping; None where there is none.
        settings: the phase's section of the configuration.
        seed: the run's seed.
        phase: name for records and streams.
        subdomain: s, or :data:`hpcdd.seeding.WHOLE`.
        parts: by subdomain the modules inside ``network`` that have random streams of their own; default: all of it
            belongs to ``subdomain``.
        share: with whom batches are shared, and the flag that rides in the messages; default: nobody.
        alike: parameters of ``network`` that ranks beyond the share have as well, see :class:`GradientAverage`.
        bf16: mixed precision by autocast.
        hooks: see :class:`Hooks`.

    Returns:
        The number of steps.

    Raises:
        DivergedError: the loss is NaN or infinite.
        StopRequest: from ``hooks.step``, or from the share's flag at the same step on all ranks that share it.
    """
    hooks, share = hooks or Hooks(), share or Share()
    device = training.labels.device
    meter = Meter(phase, subdomain, settings, len(training), device)
    patience = _Patience(settings.early_stopping)
    optimizer = make_optimizer(network, settings)
    schedule = make_schedule(optimizer, settings, meter.steps_per_epoch * settings.epochs)

    with (
        Streams(parts or {subdomain: network}, device) as streams,
        Steps(network, optimizer, share, alike, bf16) as steps,
    ):
        for epoch in range(settings.epochs):
            network.train()
            meter.begin_epoch(epoch)
            order_seed = seed_of(seed, f"{phase} order", subdomain=subdomain, epoch=epoch)
            view_seed = seed_of(seed, f"{phase} augmentation", epoch=epoch)
            streams.begin(seed, f"{phase} dropout", epoch)
            with training.epoch(order_seed, view_seed) as (order, seen):
                for batch in torch.split(order, meter.batch_size)[: meter.steps_per_epoch]:
                    hooks.step()
                    meter.learning_rate = optimizer.param_groups[0]["lr"]
                    if hooks.due():
                        hooks.status(meter.status())
                    meter.add(*steps.step(seen, batch, phase))
                    schedule.step()

            with hooks.evaluation():
                share.average_buffers(network)
                meter.sums = share.sum(meter.sums)
                if validation is not None:
                    meter.validation = evaluate(network, validation, hooks.step, share)
            enough = patience.exhausted(meter.validation[1], network)
            hooks.epoch(meter.status(finished=enough or epoch + 1 == settings.epochs))
            if enough:
                break
        hooks.step()
    patience.restore(network)
    return (epoch + 1) * meter.steps_per_epoch


def logits_of(
    network: nn.Module,
    samples: AnySamples,
    step: Callable[[], None] = lambda: None,
    share: Share | None = None,
) -> torch.Tensor:
    """The network's decisions on a whole split, in evaluation mode and float32.

    Args:
        network: maps a batch of inputs to logits (b, K), or to anything of shape (b, F).
        samples: n samples.
        step: called before each batch.
        share: ranks that have copies of the network compute a part each.

    Returns:
        float32 (n, K) on the CPU of every rank.
    """
    share = share or Share()
    part = share.part_of(len(samples))
    network.eval()
    parts = []
    with torch.inference_mode():
        # A share without rows takes part with an empty batch: others may wait for its messages.
        for start in range(part.start, max(part.stop, part.start + 1), _EVALUATION_BATCH):
            step()
            inputs, _ = samples.batch(slice(start, min(start + _EVALUATION_BATCH, part.stop)))
            parts.append(network(inputs).float())
    return share.join(torch.cat(parts).cpu(), len(samples))


def evaluate(
    network: nn.Module,
    samples: AnySamples,
    step: Callable[[], None] = lambda: None,
    share: Share | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on a split, in evaluation mode; arguments as for :func:`logits_of`."""
    logits, labels = logits_of(network, samples, step, share), samples.labels.cpu()
    accuracy = (logits.argmax(1) == labels).float().mean()
    return float(functional.cross_entropy(logits, labels)), float(accuracy)
