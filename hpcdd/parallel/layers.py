"""Batch norm and dropout of a batch that several ranks share: the same numbers as on one rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ..models.layers import Dropout
from .share import Share


@contextlib.contextmanager
def shared_layers(network: nn.Module, share: Share) -> Iterator[None]:
    """Inside the ``with`` block batch norm and dropout in ``network`` work on shared batches; parameters are the same.

    Nothing is replaced where nobody shares, or where ``share`` is not exact.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    if share.comm is not None and share.exact:
        for module in list(network.modules()):
            for name, child in list(module._modules.items()):  # named_children gives a child once, wherever it stands
                if isinstance(child, nn.Dropout):
                    setattr(module, name, SharedDropout(child, share).train(child.training))
                elif isinstance(child, _BatchNorm):
                    setattr(module, name, SharedBatchNorm.of(child, share))
                else:
                    continue
                replaced.append((module, name, child))
    yield
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


class SharedBatchNorm(_BatchNorm):
    """Batch norm over all rows of the batch: two small messages, one forward and one backward."""

    share: Share

    @classmethod
    def of(cls, norm: _BatchNorm, share: Share) -> SharedBatchNorm:
        """The same layer, with the same parameters and buffers."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made.share = share
        made.training = norm.training
        made._parameters, made._buffers = norm._parameters, norm._buffers
        return made

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of spatial axes is right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, C, ...) -> the same shape, normalised per channel over the whole batch."""
        if not self.training:
            return super().forward(x)
        y, mean, var, count = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.eps, self.share
        )
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                rate = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, rate)
                self.running_var.lerp_(var * (count / (count - 1).clamp(min=1)), rate)
        return y  # type: ignore[no-any-return]


class _Normalise(Function):
    """The sums over the batch in forward and backward pass are sums over the ranks' rows."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, eps: float, share: Share) -> Any:
        channels = x.shape[1]
        count = x.numel() // channels
        exact = x.float() if x.dtype == torch.bfloat16 else x  # sums in bfloat16 would be worth little
        mean, var = torch.batch_norm_update_stats(exact, None, None, 0.0)
        # Sums of squares about each rank's own mean, and the means' own spread: nothing cancels (Chan, Golub, LeVeque).
        # A GPU is waited for once, before the message.
        own_count = mean.new_full((1,), count, dtype=torch.float64)
        everyone = share.gather(torch.cat([mean.double(), var.double(), own_count]))
        counts = everyone[:, -1:]
        total = counts.sum()
        means, variances = everyone[:, :channels], everyone[:, channels:-1]
        whole_mean = (counts * means).sum(0) / total
        whole_var = (counts * (variances + (means - whole_mean) ** 2)).sum(0) / total
        mean, var = whole_mean.to(mean.dtype), whole_var.to(var.dtype)
        y = functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(x, weight, mean, var, total)
        ctx.eps, ctx.share = eps, share
        ctx.mark_non_differentiable(mean, var, total)
        return y, mean, var, total

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor, *_: Any) -> Any:
        x, weight, mean, var, total = ctx.saved_tensors
        factor = torch.ones_like(mean) if weight is None else weight
        # With mean and variance held fixed: dx, sum of dy times the normalised x, sum of dy, over this rank's rows.
        dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            dy, x, factor, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sums = ctx.share.sum(torch.cat([d_weight, d_bias]).double()) / total
        of_product, of_dy = sums.to(x.dtype).chunk(2)
        scale = torch.rsqrt(var + ctx.eps)
        shape = (1, -1, *[1] * (x.ndim - 2))
        slope = factor * scale * scale * of_product
        offset = factor * scale * of_dy - slope * mean
        dx = dx - x * slope.view(shape) - offset.view(shape)
        return (
            dx,
            d_weight if ctx.needs_input_grad[1] else None,
            d_bias if ctx.needs_input_grad[2] else None,
            None,
            None,
        )


def _format_of(x: torch.Tensor) -> torch.memory_format:
    for form in (torch.channels_last, torch.channels_last_3d):
        if x.ndim == {torch.channels_last: 4, torch.channels_last_3d: 5}[form] and x.is_contiguous(memory_format=form):
            return form
    return torch.contiguous_format
