"""A CNN for accuracy per second, after the speed records on CIFAR-10: K. Jordan, arXiv 2404.00498 ("airbench").

A frozen whitening convolution, groups of two convolutions with batch norm and GELU, a global max-pool and a scaled
linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import nn

from .layers import batch_norm, conv2x2, conv3x3, halve

_EPSILON = 5e-4
_SCALE = 1 / 9
_MOMENTUM = 0.4
"""Weight of a batch in batch norm's running statistics: high, since few steps are trained."""
_ENTRIES = 1 << 26
"""Numbers of patches in memory at once."""


class ScaledLinear(nn.Linear):
    """A linear layer without bias whose output is multiplied by a constant.

    Attributes:
        scale: the constant.
    """

    def __init__(self, features: int, outputs: int, scale: float) -> None:
        super().__init__(features, outputs, bias=False)
        self.scale = scale

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(n, F) -> (n, K)."""
        return super().forward(input) * self.scale


class _Group(nn.Sequential):
    """(Convolution, max-pool by 2, batch norm, GELU), (convolution, batch norm, GELU)."""

    def __init__(self, axes: int, channels_in: int, channels_out: int, pool: nn.Module) -> None:
        first, second = (conv3x3(axes, c, channels_out, bias=False) for c in (channels_in, channels_out))
        for conv in (first, second):
            weight = conv.get_parameter("weight")
            with torch.no_grad():
                nn.init.dirac_(weight[: weight.shape[1]])  # channels pass through; what is left starts at random
        super().__init__(
            first, pool, _norm(axes, channels_out), nn.GELU(), second, _norm(axes, channels_out), nn.GELU()
        )


def _norm(axes: int, channels: int) -> nn.Module:
    norm = batch_norm(axes, channels, momentum=_MOMENTUM)
    norm.get_parameter("weight").requires_grad_(False)  # stays 1
    return norm


class Fast(nn.Module):
    """A frozen whitening convolution, n groups that halve the image, global max-pool, a linear layer without bias.

    Args:
        input_shape: (C, *spatial) of one subimage, with two or three spatial axes of at least 4 pixels.
        num_classes: K.
        width: w.
        multiples: channels of each group in widths.

    Raises:
        ValueError: an axis has fewer than 4 pixels.
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int, width: int, multiples: Sequence[int]) -> None:
        super().__init__()
        channels, shape = input_shape[0], tuple(input_shape[1:])
        if min(shape) < 4:
            raise ValueError(f"images of {' x '.join(map(str, shape))} pixels; at least 4 are needed along each axis")
        axes = len(shape)
        filters = 2 * channels * 2**axes
        self.whitening = conv2x2(axes, channels, filters)
        self.whitening.get_parameter("weight").requires_grad_(False)
        shape = tuple(n - 1 for n in shape)
        groups, channels = list[nn.Module](), filters
        for multiple in multiples:
            pool, shape = halve(shape)
            groups.append(_Group(axes, channels, width * multiple, pool))
            channels = width * multiple
        self.activation = nn.GELU()
        self.groups = nn.Sequential(*groups)
        self._frozen: list[nn.Module] = []
        self.classifier = ScaledLinear(channels, num_classes, _SCALE)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, *spatial) -> logits (n, K)."""
        logits: torch.Tensor = self.classifier(self.penultimate(images))
        return logits

    def penultimate(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, *spatial) -> input of the last layer, (n, F)."""
        features: torch.Tensor = self.groups(self.activation(self.whitening(images)))
        return features.flatten(2).amax(2)

    def freeze(self, stages: int) -> None:
        """Freezes the first stages in evaluation mode; the whitening is the first stage."""
        self._frozen = [self.whitening, *self.groups][:stages]
        for stage in self._frozen:
            stage.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """See torch.nn.Module; frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage in self._frozen:
            stage.eval()
        return self

    @staticmethod
    def images_at_once(shape: Sequence[int]) -> int:
        """Images (C, *spatial) of a part that :meth:`init_whitening` takes at a time; their patches fit in memory."""
        numbers = math.prod(shape) << (len(shape) - 1)  # a patch has two pixels along each axis
        return max(1, _ENTRIES // numbers)

    @torch.no_grad()
    def init_whitening(self, parts: Iterable[torch.Tensor]) -> None:
        """Sets the whitening filters: +-eigenvectors of the covariance of patches, over their standard deviations.

        Args:
            parts: of the images, float (n, C, *spatial), normalised as in training.
        """
        weight = self.whitening.get_parameter("weight")
        size = weight.shape[1:]
        covariance, count = torch.zeros(size.numel(), size.numel(), dtype=torch.float64), 0
        for images in parts:
            windows = images
            for axis in range(2, images.ndim):
                windows = windows.unfold(axis, 2, 1)
            patches = windows.movedim(1, images.ndim - 1).flatten(0, images.ndim - 2).flatten(1)
            covariance += (patches.T @ patches).double().cpu()
            count += len(patches)
        values, vectors = torch.linalg.eigh(covariance / count)
        scaled = (vectors / (values + _EPSILON).sqrt()).T.flip(0).reshape(-1, *size)
        weight.copy_(torch.cat([scaled, -scaled]))
