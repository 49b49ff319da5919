"""Batch norm whose sums over the batch are accurate at every size, on one rank or over the rows of several.

On the CPU, PyTorch's kernels for memory channels last add up float32 one pixel after the other: over 16 x 64 x 128 x
128 pixels the variance is wrong by one percent (``docs/upstream-batch-norm.md``). Here the same kernels see 64 rows,
and in each of them many pixels side by side as if they were further channels, which takes no copy; the results for
each of these are added up likewise. Kernels on GPUs add up in a tree, and are left as they are.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from .batch_context import BatchContext, SharingRanks

_ADDENDS = 64
"""Numbers that are added one after the other: the error of so short a sum is below 1e-6."""
_FEW = 1 << 18
"""Numbers whose sum, added one after the other, is accurate to 1e-4."""
_WIDTH = 1 << 14
"""Numbers of a block's row for each thread: with its coefficients it stays in the cache."""


class BatchNorm(_BatchNorm):
    """PyTorch's batch norm layer with accurate sums, see :func:`accurate`.

    Attributes:
        context: of the training steps. With a shard in it, statistics in training mode are those of all rows of the
            batch, with two small messages, one forward and one backward; without, those of the input's rows.
        batched: whether it computes inside :func:`torch.func.vmap`.
    """

    context: BatchContext | None = None
    batched = False

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(b, C, ...) -> the same shape, normalised per channel."""
        is_accurate = input.device.type != "cpu" or input.numel() <= _ADDENDS * self.num_features
        # Fake tensors have only shapes: nothing is added up, and a loop over many blocks would take long.
        is_accurate |= type(input) is not torch.Tensor
        # The error over so few numbers is far below the rounding of bfloat16.
        few = input.numel() <= _FEW * self.num_features
        is_accurate |= input.dtype == torch.bfloat16 and few and not self.batched
        shard = None if self.context is None else self.context.shard
        if not self.training or (is_accurate and shard is None):
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        rate = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            rate = 1 / float(self.num_batches_tracked) if rate is None else rate
        normalise = _BatchedNormalise if self.batched else _Normalise
        ranks = None if shard is None else shard.sharing
        y: torch.Tensor = normalise.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.running_mean, self.running_var, rate, self.eps, ranks
        )
        return y


def accurate(network: nn.Module) -> nn.Module:
    """Makes the batch norm layers in ``network`` accurate, in place: modules and names stay what they are."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward:
            module.__class__ = _accurate(type(module))  # type: ignore[arg-type]
    return network


def pytorchs(network: nn.Module) -> nn.Module:
    """Makes the batch norm layers in ``network`` PyTorch's own ones, in place, for comparisons."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.__class__ = type(module).__bases__[1]
    return network


@functools.cache
def _accurate(kind: type[_BatchNorm]) -> type[BatchNorm]:
    return type(kind.__name__, (BatchNorm, kind), {"__doc__": BatchNorm.__doc__})


class _Normalise(Function):
    """Normalises by the batch's statistics, and updates the running ones."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: Any,
        bias: Any,
        running_mean: Any,
        running_var: Any,
        rate: Any,
        eps: float,
        ranks: SharingRanks | None,
    ) -> torch.Tensor:
        mean, var, count = _statistics(x, ranks)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), rate)
            running_var.lerp_((var * (count / (count - 1 + (count <= 1)))).to(running_var.dtype), rate)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.count, ctx.eps, ctx.ranks = count, eps, ranks
        return functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> Any:
        """Gradients of x, weight and bias; of the latter two this rank's rows' part."""
        x, weight, mean, var = ctx.saved_tensors
        of_product, of_dy = _gradient_sums(dy, x, mean, var, ctx.eps)
        dx = None
        if ctx.needs_input_grad[0]:
            scale = torch.rsqrt(var + ctx.eps)
            if weight is not None:
                scale *= weight
            sums = of_product, of_dy
            if ctx.ranks is not None:
                sums = ctx.ranks.sum(torch.stack(sums).double()).to(scale.dtype).unbind()
            slope = scale / -ctx.count
            dx = functional.batch_norm(x, mean, var, slope * sums[0], slope * sums[1], training=False, eps=ctx.eps)
            _add_scaled(dx, dy, scale)
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        return dx, of_product if needs_weight else None, of_dy if needs_bias else None, None, None, None, None, None


class _BatchedNormalise(Function):
    """As :class:`_Normalise` for batched networks: their channels side by side are those of one."""

    @staticmethod
    def forward(*_: Any) -> Any:
        """Not called: the operation is used only inside vmap."""
        raise NotImplementedError

    @staticmethod
    def setup_context(*_: Any) -> None:
        """Nothing to save: :class:`_Normalise`, which it calls, is differentiated."""

    @staticmethod
    def vmap(_: Any, in_dims: Any, x: torch.Tensor, *arguments: Any) -> Any:
        """Takes x (S, n, C, ...) and (S, C) of each parameter and buffer."""
        x = x.movedim(in_dims[0], 1)
        flat = [
            values.movedim(dim, 0).view(-1) if isinstance(values, torch.Tensor) else values
            for values, dim in zip(arguments, in_dims[1:], strict=True)
        ]
        y = _Normalise.apply(x.flatten(1, 2), *flat)  # type: ignore[no-untyped-call]
        return y.unflatten(1, x.shape[1:3]), 1


def _statistics(x: torch.Tensor, ranks: SharingRanks | None) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Mean and biased variance of x (b, C, ...) per channel, (C,), and the number of pixels per channel."""
    dtype = torch.promote_types(x.dtype, torch.float32)  # sums in 16 bits would be inaccurate
    count = x.numel() // x.shape[1]
    if x.device.type == "cpu":
        mean, var = _moments(_rows(x), dtype)
    else:
        mean, var = torch.batch_norm_update_stats(x.to(dtype), None, None, 0.0)
    if ranks is None:
        return mean, var, count
    # Sums of squares about each rank's own mean, and the means' own spread: nothing cancels (Chan, Golub, LeVeque).
    # A GPU is waited for once, before the message.
    of_this_rank = torch.cat([mean.double(), var.double(), mean.new_full((1,), count, dtype=torch.float64)])
    everyone = ranks.gather(of_this_rank)
    counts, (means, variances) = everyone[:, -1], everyone[:, :-1].chunk(2, dim=1)
    total = counts.sum()
    total_mean = counts @ means / total
    total_var = counts @ (variances + (means - total_mean) ** 2) / total
    return total_mean.to(dtype), total_var.to(dtype), total


def _moments(rows: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance (C,) of the rows of (n, C) on the CPU."""
    channels, rest = rows.shape[1], len(rows) % _ADDENDS
    if len(rows) == rest:
        return torch.batch_norm_update_stats(rows.to(dtype), None, None, 0.0)
    moments = [torch.batch_norm_update_stats(block.to(dtype), None, None, 0.0) for (block,) in _blocks(rows)]
    last = moments.pop() if rest else None
    means, variances = moments[0] if len(moments) == 1 else map(torch.cat, zip(*moments, strict=True))
    k = means.numel() // channels
    mean, var = means, variances
    if k > 1:  # in double precision, where the order of addends doesn't matter
        means = means.view(k, channels).double()
        mean, spread = torch.batch_norm_update_stats(means, None, None, 0.0)
        mean, var = mean.to(dtype), variances.view(k, channels).sum(0).div_(k).add_(spread)
    if last is not None:
        part = rest / len(rows)
        difference = last[0] - mean
        mean = mean + part * difference
        var = (1 - part) * (var + part * difference**2) + part * last[1]
    return mean, var


def _gradient_sums(
    dy: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per channel the sums of dy times the normalised x and of dy, (C,)."""

    def sums(dy: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
        k = x.shape[1] // len(mean)
        _, *gradients = torch.ops.aten.native_batch_norm_backward(
            dy, x, None, _repeated(mean, k), _repeated(var, k), None, None, False, eps, [False, True, True]
        )
        return [values.view(k, -1).sum(0) for values in gradients]

    if x.device.type != "cpu":
        of_product, of_dy = sums(dy, x)
        return of_product, of_dy
    of_blocks = [sums(*block) for block in _blocks(_rows(dy), _rows(x))]
    of_product, of_dy = (
        of_blocks[0] if len(of_blocks) == 1 else (torch.stack(each).sum(0) for each in zip(*of_blocks, strict=True))
    )
    return of_product, of_dy


def _add_scaled(dx: torch.Tensor, dy: torch.Tensor, scale: torch.Tensor) -> None:
    """Adds dy, scaled per channel, to dx."""
    if dx.device.type == "cpu" and dx.movedim(1, -1).is_contiguous():
        for dx_block, dy_block in _blocks(_rows(dx), _rows(dy)):
            dx_block.addcmul_(dy_block, _repeated(scale, dx_block.shape[1] // len(scale)))
    else:
        dx.addcmul_(dy, scale.view(-1, *[1] * (dx.ndim - 2)))


def _rows(x: torch.Tensor) -> torch.Tensor:
    """(b, C, ...) as (pixels, C): a view where memory is channels last."""
    return x.movedim(1, -1).reshape(-1, x.shape[1]).contiguous()


def _blocks(*matrices: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Matrices (n, C), cut at the same rows into blocks (64, k * C), k rows side by side; the rest (n % 64, C) last."""
    n, channels = matrices[0].shape
    full = n - n % _ADDENDS
    step = _ADDENDS * max(1, _WIDTH * torch.get_num_threads() // channels)
    if n == full <= step:
        return [tuple([m.view(_ADDENDS, -1) for m in matrices])]
    ends = [*range(0, full, step), full]
    blocks = [tuple(m[a:b].view(_ADDENDS, -1) for m in matrices) for a, b in itertools.pairwise(ends)]
    return blocks if full == n else [*blocks, tuple(m[full:] for m in matrices)]


def _repeated(values: torch.Tensor, times: int) -> torch.Tensor:
    """(C,) several times, (times * C,)."""
    return values if times == 1 else values.expand(times, -1).reshape(-1)
