"""VGG: shapes down to one pixel, parameters counted by hand, dropout rates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hpcdd.models.vgg import VGG

from .checks import check_logits_and_gradients

SHAPES = [(1, 1, 1), (3, 4, 4), (2, 5, 7), (1, 1, 9), (3, 32, 32), (1, 1, 1, 1), (1, 4, 4, 4), (2, 3, 6, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
def test_logits_and_gradients(blocks: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    check_logits_and_gradients(VGG(blocks, shape, 5, 4, (0.2, 0.5)), shape, 5)


@pytest.mark.parametrize(
    ("shape", "width", "parameters"), [((3, 32, 32), 32, 551_722), ((3, 16, 16), 16, 89_754)], ids=["global", "local"]
)
def test_parameters_of_vgg3(shape: tuple[int, ...], width: int, parameters: int) -> None:
    assert sum(p.numel() for p in VGG(3, shape, 10, width, (0.2, 0.5)).parameters()) == parameters


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_parameters_by_hand(blocks: int, shape: tuple[int, ...]) -> None:
    axes, width, classes = len(shape) - 1, 6, 7
    expected, channels, spatial = 0, shape[0], list(shape[1:])
    for block in range(blocks):
        out = width * 2**block
        for channels_in in (channels, out):
            expected += 3**axes * channels_in * out + out + 2 * out  # convolution with bias; batch norm
        channels, spatial = out, [max(1, n // 2) for n in spatial]
    expected += channels * math.prod(spatial) * channels + channels + 2 * channels + channels * classes + classes
    network = VGG(blocks, shape, classes, width, (0.0, 0.0))
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(
    ("blocks", "rates"), [(1, [0.2, 0.5]), (3, [0.2, 0.3, 0.4, 0.5]), (4, [0.2, 0.275, 0.35, 0.425, 0.5])]
)
def test_dropout_rises_evenly(blocks: int, rates: list[float]) -> None:
    network = VGG(blocks, (1, 8, 8), 3, 2, (0.2, 0.5))
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == pytest.approx(rates)


def test_blocks_are_convolution_relu_norm_twice() -> None:
    kinds = [type(layer).__name__ for layer in VGG(2, (1, 8, 8), 3, 2, (0.2, 0.5)).features]
    assert kinds == [*["Conv2d", "ReLU", "BatchNorm2d"] * 2, "MaxPool2d", "Dropout"] * 2


def test_every_pixel_matters() -> None:
    """No pixel of an even image is cut off by the pooling."""
    torch.manual_seed(0)
    network = VGG(3, (1, 8, 8), 4, 4, (0.0, 0.0)).eval()
    image = torch.randn(1, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image).sum(), image)
    assert (gradient != 0).all()
