"""ResNet: shapes down to one pixel, the parameters of the paper, and the shortcut without parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpcdd.models.resnet import ResNet

from .checks import check_logits_and_gradients

SHAPES = [(1, 1, 1), (3, 4, 4), (2, 5, 7), (1, 1, 9), (3, 32, 32), (1, 1, 1, 1), (1, 4, 4, 4), (2, 3, 6, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n", [1, 3], ids=["resnet8", "resnet20"])
def test_logits_and_gradients(n: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    check_logits_and_gradients(ResNet(n, shape, 5, 4), shape, 5)


def test_resnet20_has_the_papers_parameters() -> None:
    """0.27M in table 6 of arXiv 1512.03385; 269,722 in implementations of option A."""
    convolutions = 9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    norms = 2 * (16 + 6 * 16 + 6 * 32 + 6 * 64)
    assert convolutions + norms + 64 * 10 + 10 == 269_722
    assert sum(p.numel() for p in ResNet(3, (3, 32, 32), 10, 16).parameters()) == 269_722


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_6n_plus_2_layers(n: int) -> None:
    layers = [m for m in ResNet(n, (3, 8, 8), 10, 2).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 6 * n + 2


def test_parameters_do_not_depend_on_the_size_of_the_image() -> None:
    counts = {sum(p.numel() for p in ResNet(1, (3, *s), 10, 8).parameters()) for s in ((1, 1), (4, 4), (32, 20))}
    assert len(counts) == 1


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 5, 4, 3)], ids=["2D", "3D"])
def test_shortcuts_subsample_and_pad_with_zeros(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    blocks = list(ResNet(2, shape, 3, 4).eval().features)[3:]
    for block in blocks:
        nn.init.zeros_(block.norm2.weight)  # only the shortcut is left
    axes = len(shape) - 1
    images = torch.randn(2, 4, *shape[1:]).relu()
    assert torch.equal(blocks[0](images), images)  # same channels, stride 1: the identity
    halved = blocks[2](images)
    assert halved.shape[:2] == (2, 8)
    assert torch.equal(halved[:, :4], images[(..., *[slice(None, None, 2)] * axes)])
    assert not halved[:, 4:].any()


def test_global_average() -> None:
    torch.manual_seed(0)
    network = ResNet(1, (1, 8, 8), 3, 2).eval()
    images = torch.randn(4, 1, 8, 8)
    maps = network.features(images)
    assert maps.shape == (4, 8, 2, 2)
    expected = functional.linear(maps.mean((2, 3)), network.classifier.weight, network.classifier.bias)
    torch.testing.assert_close(network(images), expected)
