"""Logits, loss and accuracy of a network on a split, by ranks that share it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from ..data.samples import AnySamples
from ..models.coherent_model import CoherentModel
from ..parallel.batch_shards import BatchSharing
from ..parallel.sharded_coherent import ShardedCoherentModel
from .step_timing import EVALUATION, part


def logits_of(
    network: nn.Module,
    samples: AnySamples,
    batch: int,
    step: Callable[[], None] = lambda: None,
    sharing: BatchSharing | None = None,
) -> torch.Tensor:
    """The network's logits on a whole split, in evaluation mode and float32.

    Args:
        network: maps a batch of inputs to logits (b, K), or to anything of shape (b, F).
        samples: n samples.
        batch: how many at a time, see :attr:`hpcdd.config.schema.TrainingSettings.evaluation_batch`; ranks that share
            them take a part each, as in a training.
        step: called before each batch.
        sharing: ranks that have copies of the network compute a part each.

    Returns:
        float32 (n, K) on the CPU of every rank.
    """
    sharing = sharing or BatchSharing()
    rows, each = sharing.part_of(len(samples)), sharing.most_of(batch)
    network.eval()
    logits = []
    with torch.inference_mode():
        # A rank without rows takes part with an empty batch: others may wait for its messages.
        for start in range(rows.start, max(rows.stop, rows.start + 1), each):
            step()
            with part(EVALUATION):
                logits.append(_mean_output(network, samples, slice(start, min(start + each, rows.stop))))
    return sharing.all_gather(torch.cat(logits).cpu(), len(samples))


def _mean_output(network: nn.Module, samples: AnySamples, rows: slice) -> torch.Tensor:
    """What the network gives for some rows, float32 (b, F): the mean over the images in which they are evaluated.

    In the coherent model the mean is that of each CNN's output, as where the outputs of trained CNNs are combined.
    """
    flipped = samples.evaluated(rows)
    if len(flipped) == 1:
        return network(flipped[0]).float()  # type: ignore[no-any-return]
    if isinstance(network, ShardedCoherentModel | CoherentModel):
        outputs = zip(*[network.outputs(inputs) for inputs in flipped], strict=True)
        return network.combined([torch.stack(of_cnn).mean(0) for of_cnn in outputs]).float()
    return torch.stack([network(inputs).float() for inputs in flipped]).mean(0)


def evaluate(
    network: nn.Module,
    samples: AnySamples,
    batch: int,
    step: Callable[[], None] = lambda: None,
    sharing: BatchSharing | None = None,
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on a split, in evaluation mode; arguments as for :func:`logits_of`."""
    logits, labels = logits_of(network, samples, batch, step, sharing), samples.labels.cpu()
    accuracy = (logits.argmax(1) == labels).float().mean()
    return float(functional.cross_entropy(logits, labels)), float(accuracy)
