"""Training of one network, alone or shared between ranks: what all phases have in common.

The messages, if any, are those of the network itself (:mod:`hpcdd.parallel.reduction`) and of the share.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..config import TrainingSettings
from ..data.samples import Samples, SideBySide
from ..errors import DivergedError, UserError
from ..parallel.gradients import GradientAverage
from ..parallel.share import Share
from ..seeding import WHOLE, seed_of
from .streams import Streams

_EVALUATION_BATCH = 512

SECTIONS = {
    "local": "local",
    "dnn": "aggregation",
    "coherent_transfer": "coherent",
    "coherent_scratch": "coherent",
    "global": "baseline",
}
"""The section of the configuration that a phase's training belongs to."""
NAMES = {
    "local": "the local CNN",
    "dnn": "the DNN",
    "coherent_transfer": "the coherent model (transfer)",
    "coherent_scratch": "the coherent model (scratch)",
    "global": "the global CNN",
}
"""What is trained in a phase."""


@dataclass(frozen=True)
class Status:
    """How far a training is; plain numbers that can be sent.

    Attributes:
        phase: ``local``, ``dnn``, ``coherent_transfer``, ``coherent_scratch`` or ``global``.
        subdomain: s; :data:`hpcdd.seeding.WHOLE` (-1) for a network that belongs to all.
        epoch: number of epochs that are complete.
        epochs: number of epochs planned.
        fraction: share of all planned steps that is done, in [0, 1].
        loss, accuracy: mean over the samples of the running epoch so far, in training mode; where ranks share
            batches, over this rank's samples until the epoch ends.
        validation_loss, validation_accuracy: at the end of the last complete epoch, None without a validation split.
        learning_rate: of the step that comes; at the end of an epoch, of its last step.
        seconds: since this training began.
        samples_per_second: over the running epoch.
        finished: whether no more steps follow.
    """

    phase: str
    subdomain: int
    epoch: int
    epochs: int
    fraction: float
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float
    samples_per_second: float
    finished: bool = False


@dataclass(frozen=True)
class Hooks:
    """What a training calls while it runs.

    Attributes:
        step: at every step boundary; may raise :class:`hpcdd.errors.StopRequest`.
        due: whether a fresh status is wanted now; asked at every step boundary.
        status: takes the status that was wanted.
        epoch: takes the status at the end of every epoch.
        evaluation: a context for the messages at the end of an epoch, which are counted apart from the steps'.
    """

    step: Callable[[], None] = lambda: None
    due: Callable[[], bool] = lambda: False
    status: Callable[[Status], None] = lambda _: None
    epoch: Callable[[Status], None] = lambda _: None
    evaluation: Callable[[], AbstractContextManager[None]] = nullcontext


class _Meter:
    """Loss, accuracy and speed of a training, summed on the device: reading them at every step would make it wait."""

    def __init__(self, phase: str, subdomain: int, settings: TrainingSettings, samples: int, device: Any) -> None:
        self.phase, self.subdomain, self.epochs = phase, subdomain, settings.epochs
        self.batch_size = min(settings.batch_size, samples)
        self.steps_per_epoch = samples // self.batch_size
        self.validation: tuple[float, float] | tuple[None, None] = (None, None)
        self.learning_rate = 0.0
        self.start = time.perf_counter()
        self._device = device

    def begin_epoch(self, epoch: int) -> None:
        self.epoch, self.steps = epoch, 0
        self.epoch_start = time.perf_counter()
        # Sums over the samples of the loss, of the hits, and the samples' number.
        self.sums = torch.zeros(3, dtype=torch.float64, device=self._device)

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self.steps += 1
        self.sums[0] += loss.detach() * len(labels)
        self.sums[1] += (logits.detach().argmax(1) == labels).sum()
        self.sums[2] += len(labels)

    def status(self, *, finished: bool = False) -> Status:
        samples, now = max(1.0, float(self.sums[2])), time.perf_counter()
        loss = float(self.sums[0]) / samples
        if not math.isfinite(loss):
            raise DivergedError(_diverged(self.phase, self.subdomain, self.epoch + 1, loss))
        return Status(
            phase=self.phase,
            subdomain=self.subdomain,
            epoch=self.epoch + (self.steps == self.steps_per_epoch),
            epochs=self.epochs,
            fraction=(self.epoch + self.steps / self.steps_per_epoch) / self.epochs,
            loss=loss,
            accuracy=float(self.sums[1]) / samples,
            validation_loss=self.validation[0],
            validation_accuracy=self.validation[1],
            learning_rate=self.learning_rate,
            seconds=now - self.start,
            samples_per_second=self.steps * self.batch_size / max(1e-9, now - self.epoch_start),
            finished=finished,
        )


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
    training: Samples | SideBySide,
    validation: Samples | SideBySide | None,
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

    Every epoch visits the samples in a new order and drops the last, smaller batch. All random numbers come from
    (seed, purpose, subdomain, epoch), so that the result depends on nothing that ran before on this rank.

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
    meter = _Meter(phase, subdomain, settings, len(training), device)
    patience = _Patience(settings.early_stopping)
    optimizer = make_optimizer(network, settings)
    schedule = make_schedule(optimizer, settings, meter.steps_per_epoch * settings.epochs)

    with Streams(parts or {subdomain: network}, device) as streams, GradientAverage(network, share, alike) as gradients:
        for epoch in range(settings.epochs):
            network.train()
            meter.begin_epoch(epoch)
            order = _order(len(training), seed_of(seed, f"{phase} order", subdomain=subdomain, epoch=epoch)).to(device)
            streams.begin(seed, f"{phase} dropout", epoch)
            for batch in torch.split(order, meter.batch_size)[: meter.steps_per_epoch]:
                hooks.step()
                share.flag.board()
                meter.learning_rate = optimizer.param_groups[0]["lr"]
                if hooks.due():
                    hooks.status(meter.status())
                inputs, labels = training.batch(share.take(batch))
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    logits = network(inputs)
                    loss = functional.cross_entropy(logits, labels)
                optimizer.zero_grad(set_to_none=True)
                (loss * share.weight).backward()  # type: ignore[no-untyped-call]
                gradients.finish()
                share.flag.check(phase)
                optimizer.step()
                meter.add(loss, logits, labels)
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


def make_optimizer(network: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer that the settings name, in its fused form, on the network's parameters."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(
            network.parameters(), rate, momentum, weight_decay=decay, nesterov=momentum > 0, fused=True
        )
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(network.parameters(), rate, weight_decay=decay, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The course of the learning rate over ``steps`` steps."""
    schedulers = torch.optim.lr_scheduler
    if settings.schedule == "one_cycle":
        return schedulers.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, cycle_momentum=False)
    if settings.schedule == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, steps)
    return schedulers.ConstantLR(optimizer, factor=1.0)


def check_precision(section: str, precision: str, device: str) -> None:
    """Refuses bf16 where the device would only imitate it.

    Args:
        section: of the configuration, for the message.
        precision: that it asks for.
        device: of this rank.

    Raises:
        UserError: naming the device.
    """
    if precision != "bf16":
        return
    if device == "cpu":
        supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    else:
        supported = torch.cuda.get_device_capability(device) >= (8, 0)
    if not supported:
        raise UserError(f"{section}.precision is 'bf16', but {device} does not compute in bfloat16; use fp32")


def logits_of(
    network: nn.Module,
    samples: Samples | SideBySide,
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
        for start in range(part.start, part.stop, _EVALUATION_BATCH):
            step()
            inputs, _ = samples.batch(slice(start, min(start + _EVALUATION_BATCH, part.stop)))
            parts.append(network(inputs).float())
        mine = torch.cat(parts).cpu() if parts else torch.empty(0)
    return share.join(mine, len(samples))


def evaluate(
    network: nn.Module,
    samples: Samples | SideBySide,
    step: Callable[[], None] = lambda: None,
    share: Share | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on a split, in evaluation mode; arguments as for :func:`logits_of`."""
    logits, labels = logits_of(network, samples, step, share), samples.labels.cpu()
    accuracy = (logits.argmax(1) == labels).float().mean()
    return float(functional.cross_entropy(logits, labels)), float(accuracy)


def _order(n: int, seed: int) -> torch.Tensor:
    """A random order of n samples, drawn on the CPU so that it does not depend on the device."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def _diverged(phase: str, subdomain: int, epoch: int, loss: float) -> str:
    section = SECTIONS[phase]
    who = NAMES[phase] if subdomain == WHOLE else f"subdomain {subdomain}"
    return (
        f"phase {phase}: the training loss of {who} is {loss} in epoch {epoch}; try a smaller {section}.learning_rate, "
        f"the one_cycle schedule (it starts low)" + ("" if phase == "dnn" else f", or {section}.precision fp32")
    )
