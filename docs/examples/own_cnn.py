"""A CNN of your own: hpcdd calls `make` once for each subimage, and once for the global CNN.

cd docs/examples && mpirun -n 4 hpcdd train --model.name own_cnn:make --model.options '{depth: 2}'
"""

import torch
from torch import nn


class PlainCNN(nn.Module):
    """Blocks of convolution, batch norm, ReLU and max-pooling.

    ``penultimate`` and ``classifier`` are what `coherent.features: penultimate` asks for; nothing else needs them.
    """

    def __init__(self, channels: int, num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for number in range(depth):
            wider = width * 2**number
            convolution = nn.Conv2d(channels, wider, 3, padding=1, bias=False)
            blocks += [convolution, nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2)]
            channels = wider
        self.body = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, num_classes)

    def penultimate(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, H, W) -> (n, F)."""
        return self.body(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, H, W) -> logits (n, K)."""
        return self.classifier(self.penultimate(images))


def make(input_shape: tuple[int, ...], num_classes: int, width: int, depth: int = 2) -> nn.Module:
    """Called with the shape (C, H, W) of a subimage, K, a width, and what `model.options` holds."""
    return PlainCNN(input_shape[0], num_classes, width, depth)
