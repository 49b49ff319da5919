"""Batch norm, and dropout of any kind, of a batch that several ranks share: the same numbers as on one rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ..models.batch_norm import BatchNorm, accurate
from ..models.layers import Dropout
from ..models.random_modules import AnyDropout
from .batch_shards import BatchShard


@contextlib.contextmanager
def shared_layers(network: nn.Module, share: BatchShard) -> Iterator[None]:
    """Inside the ``with`` block batch norm and dropout in ``network`` work on shared batches; parameters are the same.

    Nothing is changed where nobody shares, or where ``share`` is not exact.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    norms: list[BatchNorm] = []
    if share.comm is not None and share.exact:
        norms = [module for module in accurate(network).modules() if isinstance(module, BatchNorm)]
        for module in list(network.modules()):
            for name, child in list(module._modules.items()):  # named_children gives a child once, wherever it stands
                if isinstance(child, AnyDropout):
                    setattr(module, name, SharedDropout(child, share).train(child.training))
                    replaced.append((module, name, child))
    for norm in norms:
        norm.share = share
    yield
    for norm in norms:
        norm.share = None
    for module, name, child in replaced:
        setattr(module, name, child.train(module.training))


class SharedDropout(nn.Module):
    """Dropout whose random numbers are drawn for the whole batch on every rank; each rank uses its rows of them.

    Args:
        layer: dropout of any kind.
        share: of the batches.
    """

    def __init__(self, layer: nn.Module, share: BatchShard) -> None:
        super().__init__()
        self.layer, self.share = layer, share

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As the layer, on this rank's rows (b, ...) of the batch."""
        if not self.training:
            found: torch.Tensor = self.layer(input)
            return found
        rows, dense = self.share.rows, input.contiguous() if input.ndim < 4 else input
        whole = torch.zeros_like(dense[:1].expand(self.share.total, *input.shape[1:]), memory_format=_format_of(dense))
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
