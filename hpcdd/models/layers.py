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
ALL_BITS = (-(1 << 63), None)
"""Bounds of a random int64 whose bits are all random."""


def conv3x3(axes: int, channels_in: int, channels_out: int, *, stride: int = 1, bias: bool = True) -> nn.Module:
    """A convolution with a kernel of 3 pixels along each of ``axes`` spatial axes and zero padding of 1."""
    return _CONV[axes](channels_in, channels_out, 3, stride=stride, padding=1, bias=bias)


def conv2x2(axes: int, channels_in: int, channels_out: int) -> nn.Module:
    """A convolution with a kernel of 2 pixels along each of ``axes`` spatial axes, without padding."""
    return _CONV[axes](channels_in, channels_out, 2)


def batch_norm(axes: int, channels: int, *, momentum: float = 0.1) -> nn.Module:
    """Batch normalisation over the samples and ``axes`` spatial axes of each channel."""
    return _BATCH_NORM[axes](channels, momentum=momentum)


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
        """Draws the factors of dropout for x (n, ...) from torch's global random state."""
        random_bits = torch.empty(words_of(x.numel()), dtype=torch.int64, device=x.device)
        return self.factors_of(random_bits.random_(*ALL_BITS), x.shape, x.dtype)

    def factors_of(self, random_bits: torch.Tensor, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """The factors of dropout: 0, or the inverse of the fraction that is kept on average.

        Args:
            random_bits: random int64 (..., :func:`words_of` of the number of values), drawn with :data:`ALL_BITS`.
            shape: (n, ...) of what is multiplied.
            dtype: of the result.

        Returns:
            (..., *shape), in memory channels last.
        """
        dropped = min(round(self.p * _VALUES), _VALUES - 1)
        values = random_bits.view(torch.int16)[..., : math.prod(shape)]
        factors = torch.empty(values.shape, dtype=dtype, device=random_bits.device)
        # The comparison writes floats directly: a mask in between would double the cost.
        torch.ge(values, dropped - _VALUES // 2, out=factors).mul_(_VALUES / (_VALUES - dropped))
        several = random_bits.shape[:-1]
        if len(shape) < 3:
            return factors.view(*several, *shape)
        return factors.view(*several, shape[0], *shape[2:], shape[1]).movedim(-1, len(several) + 1)


def words_of(values: int) -> int:
    """Words of 64 bits that hold that many values of 16."""
    return -(-values // 4)
