"""One name for the 2D and the 3D form of each layer, so that a CNN family is written once; and a cheaper dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

_CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_VALUES = 1 << 16


def conv3x3(axes: int, channels_in: int, channels_out: int, *, stride: int = 1, bias: bool = True) -> nn.Module:
    """A convolution with a kernel of 3 pixels along each of ``axes`` spatial axes and zero padding of 1."""
    return _CONV[axes](channels_in, channels_out, 3, stride=stride, padding=1, bias=bias)


def batch_norm(axes: int, channels: int) -> nn.Module:
    """Batch normalisation over the samples and ``axes`` spatial axes of each channel."""
    return _BATCH_NORM[axes](channels)


def halve(shape: Sequence[int]) -> tuple[nn.Module, tuple[int, ...]]:
    """Max-pooling by 2 along every axis that still has 2 pixels or more: a small subimage is never pooled away.

    Args:
        shape: spatial shape that comes in, pixels.

    Returns:
        The layer, and the spatial shape that goes out.
    """
    kernel = tuple(2 if n >= 2 else 1 for n in shape)
    return _POOL[len(shape)](kernel), tuple(n // k for n, k in zip(shape, kernel, strict=True))


class Dropout(nn.Dropout):
    """Dropout with cheaper random numbers: on the CPU torch's own take longer than a batch norm.

    A random number has 16 bits, so that the rate is a multiple of 2^-16.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> the same shape."""
        if not self.training or self.p == 0:
            return input
        return input * self.factors(input)

    def factors(self, x: torch.Tensor) -> torch.Tensor:
        """Draws what dropout multiplies x (n, ...) by, from torch's global random state."""
        return self.factors_of(numbers(x.shape, x.device, [None])[0], x.dtype)

    def factors_of(self, drawn: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What dropout multiplies by: 0, or the inverse of the share that stays on average.

        Args:
            drawn: of :func:`numbers`, of any shape.
            dtype: that is wanted.
        """
        dropped = min(round(self.p * _VALUES), _VALUES - 1)
        return (drawn >= dropped - _VALUES // 2).to(dtype).mul_(_VALUES / (_VALUES - dropped))


def numbers(shape: Sequence[int], device: torch.device, generators: Sequence[torch.Generator | None]) -> torch.Tensor:
    """Random numbers, as many from each generator; a sample's lie in memory channels last.

    Args:
        shape: (n, ...) of what each generator draws.
        device: of the generators.
        generators: S of them; None is torch's global random state.

    Returns:
        int16 (S, n, ...), each value of 16 bits alike.
    """
    size = math.prod(shape)
    words = torch.empty(len(generators), -(-size // 4), dtype=torch.int64, device=device)
    for row, generator in zip(words, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)
    values = words.view(torch.int16)[:, :size]
    if len(shape) < 3:
        return values.view(-1, *shape)
    return values.view(-1, shape[0], *shape[2:], shape[1]).movedim(-1, 2)
