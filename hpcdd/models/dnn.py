"""The dense network (DNN) that is trained to combine the local outputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ..config.schema import AggregationSettings
from ..core.seeding import seed_of
from .layers import Dropout

_STREAM = "initial DNN parameters"


class DNN(nn.Module):
    """Dense layers with ReLU on the features of all S subdomains side by side.

    Attributes:
        widths: features per subdomain, S numbers; they cut ``first.weight`` (hidden, sum of widths) into S blocks of
            columns.
        first: the first layer.
        rest: the layers after it.

    Args:
        widths: see above.
        hidden: units of the hidden layers; empty for a single linear layer.
        num_classes: K.
        dropout: rate after each hidden layer.
    """

    def __init__(self, widths: Sequence[int], hidden: Sequence[int], num_classes: int, dropout: float) -> None:
        super().__init__()
        self.widths = tuple(widths)
        units = [sum(widths), *hidden, num_classes]
        self.first = nn.Linear(units[0], units[1])
        self.rest = rest_of(units[1:], dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Float (n, sum of widths) -> logits (n, K)."""
        logits: torch.Tensor = self.rest(self.first(features))
        return logits

    def block(self, subdomain: int) -> torch.Tensor:
        """The columns of ``first.weight`` that belong to a subdomain: a view (hidden, widths[subdomain])."""
        start = sum(self.widths[:subdomain])
        return self.first.weight[:, start : start + self.widths[subdomain]]


def rest_of(units: Sequence[int], dropout: float) -> nn.Sequential:
    """The layers after the first one, from ``units[0]`` hidden units to ``units[-1]`` classes."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(units):
        layers += [nn.ReLU(), Dropout(dropout), nn.Linear(before, after)]
    return nn.Sequential(*layers)


def create_dnn(settings: AggregationSettings, widths: Sequence[int], num_classes: int, seed: int) -> DNN:
    """The DNN of the ``aggregation`` section with initial parameters, assembled from blocks that any rank can draw.

    Args:
        settings: ``aggregation`` section.
        widths: features per subdomain.
        num_classes: K.
        seed: the run's seed.
    """
    dnn = DNN(widths, settings.hidden, num_classes, settings.dropout)
    bias, rest = initial_rest(settings, sum(widths), num_classes, seed)
    with torch.no_grad():
        for subdomain, width in enumerate(widths):
            dnn.block(subdomain).copy_(initial_block(len(bias), width, sum(widths), seed, subdomain))
        dnn.first.bias.copy_(bias)
    dnn.rest = rest
    return dnn


def initial_block(hidden: int, width: int, inputs: int, seed: int, subdomain: int) -> torch.Tensor:
    """Initial columns of the first layer for one subdomain, float32 (hidden, width), as torch draws a linear layer's.

    Args:
        hidden: units of the first layer.
        width: features of this subdomain.
        inputs: features of all subdomains.
        seed: the run's seed.
        subdomain: s; its block does not depend on the rank that draws it.
    """
    generator = torch.Generator().manual_seed(seed_of(seed, _STREAM, subdomain=subdomain))
    bound = 1 / math.sqrt(inputs)
    return torch.empty(hidden, width).uniform_(-bound, bound, generator=generator)


def initial_rest(
    settings: AggregationSettings, inputs: int, num_classes: int, seed: int
) -> tuple[torch.Tensor, nn.Sequential]:
    """Initial bias (hidden,) of the first layer, and the layers after it; the same on every rank."""
    units = [*settings.hidden, num_classes]
    torch.manual_seed(seed_of(seed, _STREAM))
    bound = 1 / math.sqrt(inputs)
    bias = torch.empty(units[0]).uniform_(-bound, bound)
    return bias, rest_of(units, settings.dropout)


def features_of(logits: torch.Tensor, features: str) -> torch.Tensor:
    """The DNN's input for class logits (..., K): the logits themselves, or their softmax (as in the papers).

    Logits keep the difference between a confident and a very confident CNN.
    """
    return functional.softmax(logits, dim=-1) if features == "probabilities" else logits
