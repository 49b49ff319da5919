"""Batch norm, and dropout of any kind, of a batch that several ranks share: the same numbers as on one rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ..models.batch_context import BatchContext
from ..models.batch_norm import BatchNorm, accurate
from ..models.layers import Dropout
from ..models.random_modules import AnyDropout
from .batch_shards import BatchSharing


@contextlib.contextmanager
def shared_layers(network: nn.Module, sharing: BatchSharing) -> Iterator[BatchContext]:
    """Inside the ``with`` block batch norm and dropout in ``network`` know a context; parameters are the same.

    In a step on a shard (:meth:`BatchContext.of`) they compute as for the whole batch. Nothing is changed where nobody
    shares, or where ``sharing`` is not exact.
    """
    context = BatchContext()
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    norms: list[BatchNorm] = []
    if sharing.comm is not None and sharing.exact:
        norms = [module for module in accurate(network).modules() if isinstance(module, BatchNorm)]
        for module in list(network.modules()):
            for name, child in list(module._modules.items()):  # named_children gives a child once, wherever it stands
                if isinstance(child, AnyDropout):
                    setattr(module, name, SharedDropout(child, context).train(child.training))
                    replaced.append((module, name, child))
    for norm in norms:
        norm.context = context
    try:
        yield context
    finally:
        for norm in norms:
            norm.context = None
        for module, name, child in replaced:
            setattr(module, name, child.train(module.training))


class SharedDropout(nn.Module):
    """Dropout whose random numbers are drawn for the whole batch on every rank; each rank uses its rows of them.

    Args:
        layer: dropout of any kind.
        context: of the steps.
    """

    def __init__(self, layer: nn.Module, context: BatchContext) -> None:
        super().__init__()
        self.layer, self.context = layer, context

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As the layer, on this rank's rows (b, ...) of the batch."""
        shard = self.context.shard
        if not self.training or shard is None:
            output: torch.Tensor = self.layer(input)
            return output
        rows, dense = shard.rows, input.contiguous() if input.ndim < 4 else input
        whole = torch.zeros_like(dense[:1].expand(shard.total, *input.shape[1:]), memory_format=_format_of(dense))
        if isinstance(self.layer, Dropout):  # it can tell what it multiplies by
            return input * self.layer.factors(whole)[rows] if self.layer.p else input
        whole[rows] = input
        y: torch.Tensor = self.layer(whole)[rows]
        return input.copy_(y) if self.layer.inplace else y


def _format_of(x: torch.Tensor) -> torch.memory_format:
    for form in (torch.channels_last, torch.channels_last_3d):
        if x.ndim == {torch.channels_last: 4, torch.channels_last_3d: 5}[form] and x.is_contiguous(memory_format=form):
            return form
    return torch.contiguous_format
