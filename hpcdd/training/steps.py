"""Training steps: of one network, whose batches ranks may share, or of CNNs of one shape at once.

The messages, if any, are those of the network itself (:mod:`hpcdd.parallel.subdomain_sum`) and of the ranks that
share batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from ..config.schema import TrainingSettings
from ..data.samples import Batches, Samples
from ..models.batch_context import BatchContext
from ..models.batched_networks import BatchedNetworks
from ..parallel.batch_shards import BatchSharing
from ..parallel.gradient_averaging import GradientAverage
from ..parallel.shared_layers import shared_layers
from . import cuda_graphs, step_timing
from .status import RunningMetrics
from .step_timing import part

Step = Callable[[torch.Tensor], None]
"""Takes the next batches, int64 (S, b): for each of the networks which of its training samples."""


class PlainSteps:
    """Steps of one network (S = 1), with their messages; a context manager.

    Args:
        network: maps a batch of inputs to logits (b, K).
        optimizer: of its parameters.
        sharing: with whom batches are shared.
        settings: of the training.
        replicated: parameters of ``network`` that ranks beyond these have as well, see :class:`GradientAverage`.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        sharing: BatchSharing,
        settings: TrainingSettings,
        replicated: Sequence[nn.Parameter] = (),
    ) -> None:
        self._network, self.optimizer, self._sharing, self._settings = network, optimizer, sharing, settings
        self._gradients = GradientAverage(network, sharing, replicated)
        self._stack, self._context = ExitStack(), BatchContext()

    def __enter__(self) -> Self:
        self._stack.enter_context(self._gradients)
        self._context = self._stack.enter_context(shared_layers(self._network, self._sharing))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of_epoch(self, seen: Sequence[Batches], running: Sequence[RunningMetrics]) -> Step:
        """The step of an epoch.

        Args:
            seen: S training splits, as the epoch shows them.
            running: S records, which count what the steps find.

        Returns:
            What does one step. It raises DivergedError on all ranks that share the batch, if one of them has set the
            flag of ``sharing``; no parameter has changed then.
        """
        (samples,), (metrics,) = seen, running
        self._network.train()

        def step(batches: torch.Tensor) -> None:
            metrics.add(*self.step(samples, batches[0]))

        return step

    def step(self, samples: Batches, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One step on this rank's shard of a batch. Behind it, all ranks see what the flag has brought.

        Args:
            samples: the training split.
            batch: int64 (b,), which of them.

        Returns:
            Mean loss, logits (rows, K) and labels (rows,) of this rank's rows.

        Raises:
            DivergedError: on all its ranks, if the flag brings that; no parameter has changed then.
        """
        self._sharing.flag.piggybacked()
        shard = self._sharing.shard(batch)
        with part("input"):
            inputs, labels = samples.batch(shard.samples)
        with self._context.of(shard):
            with part("forward"), torch.autocast(labels.device.type, torch.bfloat16, enabled=self._settings.bf16):
                logits = self._network(inputs)
                loss = functional.cross_entropy(logits, labels, label_smoothing=self._settings.label_smoothing)
            with part("backward"):
                self.optimizer.zero_grad(set_to_none=True)
                # Not as the gradient of backward(): checking that, torch imports what it knows of symbolic shapes.
                (loss * shard.weight).backward()  # type: ignore[no-untyped-call]
                self._gradients.finish()
        self._sharing.flag.check_divergence()
        with part("optimizer"):
            self.optimizer.step()
        return loss, logits, labels


class BatchedSteps:
    """Steps of S CNNs of one shape at once, without messages; a context manager.

    On a GPU a step is recorded once and replayed, where the samples lie there.

    Args:
        stack: the CNNs, on one device.
        optimizer: of its leaves.
        sharing: with nobody; its flag brings what one of the CNNs finds.
        settings: of the training.
    """

    def __init__(
        self,
        stack: BatchedNetworks,
        optimizer: torch.optim.Optimizer,
        sharing: BatchSharing,
        settings: TrainingSettings,
    ) -> None:
        self._stack, self.optimizer, self._flag, self._settings = stack, optimizer, sharing.flag, settings
        device = stack.leaves[0].device
        self._recorder = cuda_graphs.recorder_of(device, list(stack.generators.values()))
        self._sums = torch.zeros(len(stack.cnns), 3, dtype=torch.float64, device=device)
        self._seen: Sequence[Batches] = []
        self._replayed: Sequence[Samples] | None = None
        self._compute: Step = self._gradients

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def of_epoch(self, seen: Sequence[Batches], running: Sequence[RunningMetrics]) -> Step:
        """As :meth:`PlainSteps.of_epoch`."""
        self._see(seen)
        for metrics, row in zip(running, self._sums, strict=True):
            metrics.sum_in(row)

        def step(batches: torch.Tensor) -> None:
            self._flag.piggybacked()
            self._flag.check_divergence()
            self._compute(batches)
            with part("optimizer"):
                self.optimizer.step()
            for metrics in running:
                metrics.end_step()

        return step

    def _see(self, seen: Sequence[Batches]) -> None:
        """Takes an epoch's samples for the steps that come."""
        fixed = [samples for samples in seen if isinstance(samples, Samples) and samples.fixed]
        if self._recorder is None or len(fixed) < len(seen) or step_timing.measured():
            # A record is of the gradients' memory, too, which such a step replaces.
            self._seen, self._compute, self._replayed = seen, self._gradients, None
        elif self._replayed is None:
            self._seen, self._compute = seen, cuda_graphs.Replayed(self._gradients, self._recorder)
            self._replayed = fixed
        else:  # what was recorded continues with this epoch's augmentation
            for ours, new in zip(self._replayed, fixed, strict=True):
                ours.renew(new)

    def _gradients(self, batches: torch.Tensor) -> None:
        """Loss and gradients of all, and their sums; the same tensors in every step."""
        with part("input"):
            pairs = [samples.batch(batch) for samples, batch in zip(self._seen, batches, strict=True)]
            inputs, labels = torch.stack([images for images, _ in pairs]), torch.stack([labels for _, labels in pairs])
        with part("forward"), torch.autocast(labels.device.type, torch.bfloat16, enabled=self._settings.bf16):
            logits = self._stack(inputs)
            each = functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=self._settings.label_smoothing
            )
            losses = each.view(labels.shape).mean(1)
        with part("backward"):
            self.optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()  # type: ignore[no-untyped-call]  # one's loss does not depend on the others
        size = labels.shape[1]
        hits = (logits.detach().argmax(2) == labels).sum(1)
        self._sums += torch.stack([losses.detach() * size, hits, torch.full_like(losses, size)], dim=1)
