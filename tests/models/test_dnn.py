"""The DNN: shapes, and the features that it sees."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from hpcdd.config import AggregationSettings
from hpcdd.models.dnn import create_dnn, features_of


@pytest.mark.parametrize("hidden", [(), (7,), (128, 64), (5, 6, 7)], ids=str)
def test_layers(hidden: tuple[int, ...]) -> None:
    dnn = create_dnn(AggregationSettings(hidden=hidden), 4, 10)
    widths = [40, *hidden, 10]
    weights = [tuple(p.shape) for p in dnn.parameters() if p.ndim == 2]
    assert weights == [(b, a) for a, b in itertools.pairwise(widths)]
    assert dnn(torch.randn(3, 40)).shape == (3, 10)
    relus = [m for m in dnn.modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == len(hidden)


def test_without_hidden_layers_it_is_linear() -> None:
    dnn = create_dnn(AggregationSettings(hidden=(), dropout=0.5), 2, 3)
    x, y = torch.randn(2, 5, 6)
    torch.testing.assert_close(dnn(x + y) + dnn(torch.zeros(5, 6)), dnn(x) + dnn(y))


def test_dropout_acts_in_training_alone() -> None:
    dnn, features = create_dnn(AggregationSettings(dropout=0.5), 4, 10), torch.randn(3, 40)
    assert not torch.equal(dnn(features), dnn(features))
    dnn.eval()
    assert torch.equal(dnn(features), dnn(features))


def test_features_lie_subdomain_by_subdomain() -> None:
    logits = torch.randn(6, 3, 4)
    assert torch.equal(features_of(logits, AggregationSettings())[:, 4:8], logits[:, 1])
    probabilities = features_of(logits, AggregationSettings(features="probabilities"))
    assert probabilities.shape == (6, 12)
    for s in range(3):
        part = probabilities[:, 4 * s : 4 * s + 4]
        torch.testing.assert_close(part.sum(1), torch.ones(6))
        torch.testing.assert_close(part.log() - part.log()[:, :1], logits[:, s] - logits[:, s, :1])
