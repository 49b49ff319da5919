"""One name for the 2D and the 3D form of each layer, so that a CNN family is written once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

_CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


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
