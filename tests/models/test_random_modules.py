"""Random numbers of a CNN that are drawn outside of the modules whose numbers ranks can share."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hpcdd.models.random_modules import foreign_draws, scale_dropout
from hpcdd.models.resnet import ResNet
from hpcdd.models.vgg import VGG

IMAGES = torch.zeros(7, 3, 8, 8)


class Doing(nn.Module):
    """A CNN whose forward pass calls another function, too."""

    def __init__(self, what: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.what, self.conv = what, nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.what(self.conv(images)).flatten(1)


@pytest.mark.parametrize(
    ("what", "named"),
    [
        (lambda x: functional.dropout(x, 0.5), "torch's bernoulli_"),
        (lambda x: functional.dropout2d(x, 0.5), "torch's bernoulli_"),
        (lambda x: functional.alpha_dropout(x, 0.5, training=True), "torch's bernoulli_"),
        (lambda x: functional.rrelu(x, training=True), "torch's rrelu_with_noise"),
        (nn.RReLU(), "torch's rrelu_with_noise"),  # it draws only for numbers below zero
        (lambda x: x * torch.rand(len(x), 1, 1, 1), "torch's rand"),
        (lambda x: x + torch.randn_like(x), "torch's randn_like"),
        (lambda x: torch.normal(x, 1.0), "torch's normal"),
        (lambda x: x * torch.empty_like(x).uniform_(), "torch's uniform_"),
        (lambda x: x[torch.randperm(len(x))], "torch's randperm"),
        (lambda x: nn.Dropout(0.5)(x) + 1, "torch's bernoulli_"),
        (lambda x: x * random.random(), "Python's random"),
        (lambda x: x * np.random.rand(), "numpy.random"),  # noqa: NPY002
    ],
)
def test_functions_that_draw_are_named(what: Callable[[torch.Tensor], torch.Tensor], named: str) -> None:
    assert foreign_draws(Doing(what), IMAGES) == [named]


@pytest.mark.parametrize(
    "network",
    [
        VGG(2, (3, 8, 8), 4, 2, (0.2, 0.5)),
        ResNet(1, (3, 8, 8), 4, 2),
        nn.Sequential(nn.Dropout2d(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.AlphaDropout(), nn.Dropout1d()),
        Doing(lambda x: functional.dropout(x, 0.5, training=False)),
    ],
    ids=["vgg", "resnet", "modules", "off"],
)
def test_networks_that_draw_only_in_known_modules(network: nn.Module) -> None:
    assert foreign_draws(network, IMAGES) == []


def test_a_module_whose_rows_are_not_samples_is_named() -> None:
    network = nn.Sequential(nn.Flatten(0, 1), nn.Flatten(), nn.Dropout())
    assert foreign_draws(network, IMAGES) == ["2 on 21 rows of 7 samples"]


def test_every_kind_of_dropout_is_scaled() -> None:
    kinds = [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout]
    network = nn.Sequential(*[kind(0.4) for kind in kinds])
    scale_dropout(network, 0.5)
    assert [module.p for module in network] == [0.2] * 6
