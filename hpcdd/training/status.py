"""What a training says of itself while it runs, and to whom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..artifacts.metrics_log import EpochRecord
from ..config.schema import TrainingSettings
from ..core.errors import DivergedError
from ..core.names import TRAININGS, TrainingName
from ..core.seeding import WHOLE


@dataclass(frozen=True)
class Status:
    """How far a training is; plain numbers that can be sent.

    Attributes:
        phase: whose training it is.
        subdomain: s; :data:`hpcdd.core.seeding.WHOLE` (-1) for a network that belongs to all.
        epoch: number of epochs that are complete.
        epochs: number of epochs planned.
        fraction: of all planned steps that are done, in [0, 1].
        loss, accuracy: mean over the samples of the running epoch so far, in training mode; where ranks share
            batches, over this rank's samples until the epoch ends.
        validation_loss, validation_accuracy: at the end of the last complete epoch, None without a validation split.
        learning_rate: of the step that comes; at the end of an epoch, of its last step.
        seconds: since this training began.
        samples_per_second: over the running epoch.
        finished: whether no more steps follow.
    """

    phase: TrainingName
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

    def record(self) -> EpochRecord:
        """As it stands in metrics.jsonl, of the end of an epoch."""
        subdomain = None if self.subdomain == WHOLE else self.subdomain
        return EpochRecord.model_validate({**asdict(self), "subdomain": subdomain})


@dataclass(frozen=True)
class Ending:
    """What the end of an epoch depends on; plain numbers that can be sent.

    Attributes:
        phase, epoch: which, counted from 1.
        sums: over the epoch's samples of the loss, of the hits, and the samples' number.
        validation: loss and accuracy.
        diverged: why a rank's numbers can't be trained on with; None where they can.
    """

    phase: TrainingName
    epoch: int
    sums: tuple[float, ...]
    validation: tuple[float, float] | tuple[None, None]
    diverged: str | None

    @property
    def finite(self) -> bool:
        """Whether the training can continue."""
        return self.diverged is None and all(map(math.isfinite, self.sums))


@dataclass(frozen=True)
class Hooks:
    """What a training calls while it runs.

    Attributes:
        step: at every step boundary; may raise :class:`hpcdd.core.errors.StopRequest`.
        due: whether a fresh status is wanted now; asked at every step boundary.
        status: takes the status that was wanted.
        agree: decides at the end of every epoch, once for all ranks that train together, what it depends on: gets what
            this rank has found.
        epoch: takes the status at the end of every epoch.
        evaluation: a context for the messages at the end of an epoch, which are counted apart from the steps'.
        history: takes the ends of epochs that lie in earlier jobs.
    """

    step: Callable[[], None] = lambda: None
    due: Callable[[], bool] = lambda: False
    status: Callable[[Status], None] = lambda _: None
    agree: Callable[[Ending], Ending] = lambda ending: ending
    epoch: Callable[[Status], None] = lambda _: None
    evaluation: Callable[[], AbstractContextManager[None]] = nullcontext
    history: Callable[[Sequence[Status]], None] = lambda _: None


class RunningMetrics:
    """Loss, accuracy and speed of a training, summed on the device: reading them at every step would make it wait.

    Attributes:
        phase, subdomain, epochs, batch_size, steps_per_epoch: of the training.
        epoch, steps: complete ones, of all epochs and of the running one.
        sums: over this rank's samples of the running epoch of the loss, of the hits, and the samples' number.
        validation: loss and accuracy at the end of the last complete epoch.
        learning_rate: of the step that comes.
        history: statuses at the ends of all epochs.
    """

    def __init__(
        self, phase: TrainingName, subdomain: int, settings: TrainingSettings, samples: int, device: torch.device
    ) -> None:
        self.phase, self.subdomain, self.epochs = phase, subdomain, settings.epochs
        self.batch_size = settings.batch_of(samples)
        self.steps_per_epoch = settings.steps_per_epoch(samples)
        self.validation: tuple[float, float] | tuple[None, None] = (None, None)
        self.learning_rate = 0.0
        self.history: list[Status] = []
        self.start = time.perf_counter()
        self._device = device
        self.begin_epoch(0)

    @property
    def steps_in_all(self) -> int:
        """Steps since the training began, those of earlier jobs included."""
        return self.epoch * self.steps_per_epoch + self.steps

    def begin_epoch(self, epoch: int) -> None:
        """Forgets the epoch before."""
        self.epoch, self.steps = epoch, 0
        self.epoch_start = time.perf_counter()
        self.sums = torch.zeros(3, dtype=torch.float64, device=self._device)

    def ending(
        self, sums: torch.Tensor, validation: tuple[float, float] | tuple[None, None], diverged: str | None
    ) -> Ending:
        """What the end of the running epoch depends on, as this rank sees it; arguments as for :class:`Ending`."""
        return Ending(self.phase, self.epoch + 1, tuple(sums.tolist()), validation, diverged)

    def sum_in(self, sums: torch.Tensor) -> None:
        """Moves the sums into a tensor (3,), to which those of the next steps are added from outside."""
        sums.copy_(self.sums)
        self.sums = sums

    def begin_step(self, learning_rate: float) -> None:
        """A step follows, with this learning rate."""
        self.learning_rate = learning_rate

    def end_step(self) -> None:
        """Counts a step whose sums are added by :meth:`add`, or where :meth:`sum_in` has moved them."""
        self.steps += 1

    def adopt(self, agreed: Ending) -> None:
        """Adopts what all ranks have agreed on.

        Raises:
            DivergedError: a rank's numbers are not finite.
        """
        if agreed.diverged is not None:
            raise DivergedError(agreed.diverged)
        self.sums = torch.tensor(agreed.sums, dtype=torch.float64, device=self._device)
        self.validation = agreed.validation

    def end_epoch(self, *, last: bool) -> Status:
        """Begins the next epoch.

        Args:
            last: whether this one is the last; besides the last of those that were planned.

        Returns:
            The status at the end of this one, the newest of ``history``.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        status = self.status(finished=last or self.epoch + 1 == self.epochs)
        self.history.append(status)
        self.begin_epoch(self.epoch + 1)
        return status

    def facts(self, sums: torch.Tensor) -> dict[str, Any]:
        """What a checkpoint keeps: plain data.

        Args:
            sums: those of the running epoch, of all ranks that share batches.
        """
        return {
            "sums": sums.tolist(),
            "validation": list(self.validation),
            "learning_rate": self.learning_rate,
            "seconds": time.perf_counter() - self.start,
            "epoch_seconds": time.perf_counter() - self.epoch_start,
            "history": [asdict(status) for status in self.history],
        }

    def restore(self, epoch: int, steps: int, facts: Mapping[str, Any], *, counts: bool) -> None:
        """Continues where :meth:`facts` was called.

        Args:
            epoch, steps: complete ones.
            facts: what it returned.
            counts: whether this rank takes the sums over; of several that share batches one does.
        """
        self.begin_epoch(epoch)
        self.steps = steps
        if counts:
            self.sums = torch.tensor(facts["sums"], dtype=torch.float64, device=self._device)
        loss, accuracy = facts["validation"]
        self.validation = (None, None) if loss is None else (loss, accuracy)
        self.learning_rate = facts["learning_rate"]
        self.start = time.perf_counter() - facts["seconds"]
        self.epoch_start = time.perf_counter() - facts["epoch_seconds"]
        self.history = [Status(**status) for status in facts["history"]]

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Counts a step, and adds its mean loss, logits (b, K) and labels (b,)."""
        self.end_step()
        self.sums[0] += loss.detach() * len(labels)
        self.sums[1] += (logits.detach().argmax(1) == labels).sum()
        self.sums[2] += len(labels)

    def status(self, *, finished: bool = False) -> Status:
        """How far the training is.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
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


def _diverged(phase: TrainingName, subdomain: int, epoch: int, loss: float) -> str:
    section = TRAININGS[phase].section
    who = TRAININGS[phase].network if subdomain == WHOLE else f"subdomain {subdomain}"
    return (
        f"phase {phase}: the training loss of {who} is {loss} in epoch {epoch}; try a smaller {section}.learning_rate, "
        f"the one_cycle schedule (it starts low)" + ("" if phase == "dnn" else f", or {section}.precision fp32")
    )
