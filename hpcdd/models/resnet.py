"""CIFAR-style residual networks with 6n+2 layers, after K. He et al., arXiv 1512.03385, section 4.2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .layers import batch_norm, conv3x3


class _Block(nn.Module):
    """Two convolutions and a shortcut without parameters (option A of the paper: subsample, pad with zero channels)."""

    def __init__(self, axes: int, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(axes, channels_in, channels_out, stride=stride, bias=False)
        self.norm1 = batch_norm(axes, channels_out)
        self.conv2 = conv3x3(axes, channels_out, channels_out, bias=False)
        self.norm2 = batch_norm(axes, channels_out)
        self._subsample = (slice(None), slice(None), *[slice(None, None, stride)] * axes)
        self._pad = (*[0] * (2 * axes), 0, channels_out - channels_in)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = functional.pad(x[self._subsample], self._pad)
        x = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    """A convolution, three stages of n residual blocks with w, 2w and 4w channels, global average, one dense layer.

    Args:
        n: blocks per stage; the network counts 6n+2 layers.
        input_shape: (C, *spatial) of one subimage, with two or three spatial axes of any size from 1 pixel.
        num_classes: K.
        width: w; the paper has 16.
    """

    def __init__(self, n: int, input_shape: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        axes = len(input_shape) - 1
        layers: list[nn.Module] = [
            conv3x3(axes, input_shape[0], width, bias=False),
            batch_norm(axes, width),
            nn.ReLU(inplace=True),
        ]
        channels = width
        for stage in range(3):
            out = width * 2**stage
            for block in range(n):
                layers.append(_Block(axes, channels, out, stride=2 if stage > 0 and block == 0 else 1))
                channels = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, *spatial) -> logits (n, K)."""
        logits: torch.Tensor = self.classifier(self.penultimate(images))
        return logits

    def penultimate(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, *spatial) -> input of the last layer, (n, F)."""
        maps: torch.Tensor = self.features(images)
        return maps.flatten(2).mean(dim=2)
