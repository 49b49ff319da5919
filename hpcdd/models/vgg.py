"""VGG with n blocks, after K. Simonyan and A. Zisserman, arXiv 1409.1556, in the small form used for CIFAR."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from .layers import Dropout, batch_norm, conv3x3, halve


class VGG(nn.Module):
    """n blocks of (convolution, ReLU, batch norm) twice, max-pooling and dropout; one dense layer; one to the classes.

    Block b has ``width * 2**b`` channels and the dense layer as many units as the last block has channels.

    Args:
        blocks: n.
        input_shape: (C, *spatial) of one subimage, with two or three spatial axes of any size from 1 pixel.
        num_classes: K.
        width: channels of the first block.
        dropout: rates after the first block and after the dense layer; the blocks between rise evenly.
    """

    def __init__(
        self, blocks: int, input_shape: Sequence[int], num_classes: int, width: int, dropout: tuple[float, float]
    ) -> None:
        super().__init__()
        channels, shape = input_shape[0], tuple(input_shape[1:])
        axes = len(shape)
        first, last = dropout
        layers: list[nn.Module] = []
        for block in range(blocks):
            out = width * 2**block
            for channels_in in (channels, out):
                layers += [conv3x3(axes, channels_in, out), nn.ReLU(inplace=True), batch_norm(axes, out)]
            pool, shape = halve(shape)
            layers += [pool, Dropout(first + (last - first) * block / blocks)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * math.prod(shape), channels),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(channels),
            Dropout(last),
        )
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, *spatial) -> logits (n, K)."""
        logits: torch.Tensor = self.classifier(self.penultimate(images))
        return logits

    def penultimate(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, *spatial) -> input of the last layer, (n, F)."""
        features: torch.Tensor = self.dense(self.features(images))
        return features
