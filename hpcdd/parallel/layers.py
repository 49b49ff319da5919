"""Batch norm and dropout of a batch that several ranks share: the same numbers as on one rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ..models.batch_norm import BatchNorm, accurate
from ..models.layers import Dropout
from .share import Share


@contextlib.contextmanager
def shared_layers(network: nn.Module, share: Share) -> Iterator[None]:
    """Inside the ``with`` block batch norm and dropout in ``network`` work on shared batches; parameters are the same.

    Nothing is replaced where nobody shares, or where ``share`` is not exact.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    norms: list[BatchNorm] = []
    if share.comm is not None and share.exact:
        norms = [module for module in accurate(network).modules() if isinstance(module, BatchNorm)]
        for module in list(network.modules()):
            for name, child in list(module._modules.items()):  # named_children gives a child once, wherever it stands
                if isinstance(child, nn.Dropout):
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
    """Dropout whose mask is drawn for the whole batch on every rank; each rank uses its rows of it."""

    def __init__(self, dropout: nn.Dropout, share: Share) -> None:
        super().__init__()
        self.p, self.share = dropout.p, share
        self._factors = dropout.factors if isinstance(dropout, Dropout) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As torch's, on this rank's rows (b, ...) of the batch."""
        if not self.training or self.p == 0:
            return x
        dense = x.contiguous() if x.ndim < 4 else x
        whole = torch.empty_like(dense[:1].expand(self.share.total, *x.shape[1:]), memory_format=_format_of(dense))
        if self._factors is not None:
            return x * self._factors(whole)[self.share.rows]
        return x * whole.bernoulli_(1 - self.p)[self.share.rows].div_(1 - self.p)


def _format_of(x: torch.Tensor) -> torch.memory_format:
    for form in (torch.channels_last, torch.channels_last_3d):
        if x.ndim == {torch.channels_last: 4, torch.channels_last_3d: 5}[form] and x.is_contiguous(memory_format=form):
            return form
    return torch.contiguous_format
