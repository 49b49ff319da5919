"""The DNN: shapes, initial parameters that any rank can draw, and the features that it sees."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from hpcdd.config.schema import AggregationSettings
from hpcdd.models.dnn import DNN, create_dnn, features_of, initial_block, initial_rest

WIDTHS = [[10, 10, 10, 10], [3, 1, 5], [7]]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("hidden", [(), (7,), (128, 64), (5, 6, 7)], ids=str)
def test_layers(hidden: tuple[int, ...], widths: list[int]) -> None:
    dnn = create_dnn(AggregationSettings(hidden=hidden), widths, 10, seed=0)
    units = [sum(widths), *hidden, 10]
    weights = [tuple(p.shape) for p in dnn.parameters() if p.ndim == 2]
    assert weights == [(b, a) for a, b in itertools.pairwise(units)]
    assert dnn(torch.randn(3, sum(widths))).shape == (3, 10)
    relus = [m for m in dnn.modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == len(hidden)


def test_without_hidden_layers_it_is_linear() -> None:
    dnn = create_dnn(AggregationSettings(hidden=(), dropout=0.5), [3, 3], 3, seed=0)
    x, y = torch.randn(2, 5, 6)
    torch.testing.assert_close(dnn(x + y) + dnn(torch.zeros(5, 6)), dnn(x) + dnn(y))


def test_dropout_acts_only_in_training() -> None:
    dnn, features = create_dnn(AggregationSettings(dropout=0.5), [10] * 4, 10, seed=0), torch.randn(3, 40)
    assert not torch.equal(dnn(features), dnn(features))
    dnn.eval()
    assert torch.equal(dnn(features), dnn(features))


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_blocks_are_views_of_neighbouring_columns(widths: list[int]) -> None:
    dnn = DNN(widths, (6,), 3, 0.0)
    assert torch.equal(torch.cat([dnn.block(s) for s in range(len(widths))], dim=1), dnn.first.weight)
    with torch.no_grad():
        dnn.block(len(widths) - 1).fill_(7.0)
    start = sum(widths[:-1])
    assert (dnn.first.weight[:, start:] == 7).all()
    assert not (dnn.first.weight[:, :start] == 7).any()


@pytest.mark.parametrize("hidden", [(), (7,), (9, 4)], ids=str)
def test_the_dnn_is_assembled_from_what_any_rank_draws(hidden: tuple[int, ...]) -> None:
    settings, widths = AggregationSettings(hidden=hidden), [3, 1, 5]
    dnn = create_dnn(settings, widths, 4, seed=11)
    units = [*hidden, 4]
    for s in (2, 0, 1):
        torch.rand(s)  # whatever was drawn before
        block = initial_block(units[0], widths[s], 9, 11, subdomain=s)
        assert block.shape == (units[0], widths[s])
        assert torch.equal(dnn.block(s), block)
    torch.rand(5)
    bias, rest = initial_rest(settings, 9, 4, 11)
    assert torch.equal(dnn.first.bias, bias)
    assert dnn.rest.state_dict().keys() == rest.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(dnn.rest.parameters(), rest.parameters(), strict=True))


def test_initial_parameters_depend_only_on_seed_and_subdomain() -> None:
    settings = AggregationSettings(hidden=(6,))

    def parameters(seed: int) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in create_dnn(settings, [4, 4], 3, seed).parameters()])

    torch.manual_seed(1)
    first = parameters(0)
    torch.manual_seed(2)
    assert torch.equal(first, parameters(0))
    assert not torch.equal(first, parameters(1))
    assert not torch.equal(initial_block(6, 4, 8, 0, subdomain=0), initial_block(6, 4, 8, 0, subdomain=1))


def test_initial_parameters_are_spread_as_torchs() -> None:
    """Uniform within 1 / sqrt(inputs), where inputs are those of all subdomains and not of one."""
    torch.manual_seed(0)
    settings, widths = AggregationSettings(hidden=(512, 256)), [300, 100]
    ours, torchs = create_dnn(settings, widths, 10, seed=0), DNN(widths, settings.hidden, 10, 0.0)
    for (name, mine), theirs in zip(ours.named_parameters(), torchs.parameters(), strict=True):
        inputs = {"first": 400, "rest.2": 512, "rest.5": 256}[name.rpartition(".")[0]]
        bound = 1 / math.sqrt(inputs)
        for parameter in (mine.detach(), theirs.detach()):
            n = parameter.numel()
            assert bound * (1 - 10 / n) <= parameter.abs().max() <= bound * (1 + 1e-6), name
            assert abs(float(parameter.mean())) < 5 * bound / math.sqrt(3 * n), name  # five standard errors
            assert float(parameter.std()) == pytest.approx(bound / math.sqrt(3), rel=3 / math.sqrt(n)), name


@pytest.mark.parametrize("features", ["logits", "probabilities", "penultimate"])
def test_features_of_logits(features: str) -> None:
    logits = torch.randn(6, 3, 4)
    seen = features_of(logits, features)
    assert seen.shape == (6, 3, 4)
    if features != "probabilities":
        assert torch.equal(seen, logits)
        return
    torch.testing.assert_close(seen.sum(-1), torch.ones(6, 3))
    torch.testing.assert_close(seen.log() - seen.log()[..., :1], logits - logits[..., :1])
    torch.testing.assert_close(features_of(logits[:, 1], features), seen[:, 1])  # of one subdomain, or of all at once
