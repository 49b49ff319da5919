"""The dense network (DNN) that is trained to combine the local decisions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from ..config import AggregationSettings


class DNN(nn.Module):
    """Dense layers with ReLU on the features of all S subdomains side by side.

    Args:
        inputs: S times the features per subdomain.
        hidden: units of the hidden layers; empty for a single linear layer.
        num_classes: K.
        dropout: rate after each hidden layer.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], num_classes: int, dropout: float) -> None:
        super().__init__()
        widths = [inputs, *hidden, num_classes]
        self.first = nn.Linear(widths[0], widths[1])
        rest: list[nn.Module] = []
        for before, after in itertools.pairwise(widths[1:]):
            rest += [nn.ReLU(), nn.Dropout(dropout), nn.Linear(before, after)]
        self.rest = nn.Sequential(*rest)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Float (n, inputs) -> logits (n, K)."""
        logits: torch.Tensor = self.rest(self.first(features))
        return logits


def create_dnn(settings: AggregationSettings, num_subdomains: int, num_classes: int) -> DNN:
    """The DNN of the ``aggregation`` section, with parameters drawn from torch's global random state."""
    return DNN(num_subdomains * num_classes, settings.hidden, num_classes, settings.dropout)


def features_of(logits: torch.Tensor, settings: AggregationSettings) -> torch.Tensor:
    """What the DNN sees: float32 (n, S*K) from the local logits (n, S, K).

    The papers feed probabilities. Logits keep the difference between a sure and a very sure CNN.
    """
    chosen = logits.softmax(2) if settings.features == "probabilities" else logits
    return chosen.flatten(1)
