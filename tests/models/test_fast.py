"""The fast family: shapes from 4 pixels, parameters by hand, whitening of the patches, what is frozen."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from hpcdd.config.sections import ModelSettings
from hpcdd.core.errors import UserError
from hpcdd.models.batched_networks import BatchedNetworks
from hpcdd.models.fast import Fast
from hpcdd.models.registry import count_parameters, create
from hpcdd.models.width import match_widths

SHAPES = [(3, 4, 4), (1, 5, 7), (2, 32, 20), (1, 4, 4, 4), (2, 9, 6, 5)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels", [(1,), (1, 4), (1, 2, 4, 8)], ids=str)
def test_logits_and_gradients(channels: tuple[int, ...], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = Fast(shape, 5, 3, channels)
    images = torch.randn(6, *shape)
    network.init_whitening([images])
    logits = network(images)
    assert logits.shape == (6, 5)
    logits.square().sum().backward()
    for name, p in network.named_parameters():
        assert p.requires_grad == (p.grad is not None), name
        assert p.grad is None or p.grad.isfinite().all()
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    norms = {f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert frozen == {"whitening.weight", *norms}
    features = network.eval().penultimate(images)
    torch.testing.assert_close(network(images), features @ network.classifier.weight.T / 9)


@pytest.mark.parametrize("shape", [(3, 3, 9), (1, 4, 3, 4)], ids=str)
def test_fewer_than_four_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"model\.name is 'fast2', but the CNNs see images of .*at least 4"):
        create(ModelSettings(name="fast2"), shape, 2, 4)


@pytest.mark.parametrize(("name", "channels"), [("fast3", None), ("fast3", (1, 2, 4)), ("fast1", None)])
def test_parameters_by_hand(name: str, channels: tuple[int, ...] | None) -> None:
    settings, width = ModelSettings(name=name, channels=channels), 32
    filters, expected = 2 * 3 * 4, 24  # of the whitening, of which only the bias is trained
    for multiple in channels or (1, 4, 4)[: int(name[-1])]:
        expected += 9 * filters * multiple * width + 9 * (multiple * width) ** 2 + 2 * multiple * width
        filters = multiple * width
    expected += filters * 10
    assert count_parameters(settings, (3, 32, 32), 10, width) == expected
    if channels is None and name == "fast3":
        assert expected == 497_240


def test_local_widths_are_matched() -> None:
    widths = match_widths(ModelSettings(name="fast3", width=32), (3, 32, 32), [(3, 16, 16)] * 4, 10)
    counted = [count_parameters(ModelSettings(name="fast3"), (3, 16, 16), 10, w) for w in (16, 15)]
    assert widths.local_width in (15, 16)
    assert 4 * counted[widths.local_width == 15] <= widths.global_parameters
    assert sum(widths.local_parameters) <= 497_240


@pytest.mark.parametrize("shape", [(3, 12, 10), (1, 6, 7, 8)], ids=str)
def test_whitened_patches_are_uncorrelated_with_variance_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    images = torch.randn(400, *shape).cumsum(-1) / 3  # neighbours are correlated
    network = Fast(shape, 2, 2, (1,))
    network.init_whitening([images])
    with torch.no_grad():
        network.whitening.bias.zero_()
        whitened = network.whitening(images).movedim(1, -1).flatten(0, -2)
    half = whitened.shape[1] // 2
    torch.testing.assert_close(whitened[:, half:], -whitened[:, :half], rtol=1e-4, atol=1e-4)
    covariance = (whitened[:, :half].T @ whitened[:, :half] / len(whitened)).double()
    torch.testing.assert_close(covariance, torch.eye(half).double(), rtol=0, atol=0.02)  # the constant shrinks a little


def test_the_whitening_does_not_depend_on_how_many_images_are_added_at_once() -> None:
    images, network = torch.randn(50, 2, 6, 6), Fast((2, 6, 6), 2, 2, (1,))
    network.init_whitening([images])
    whole = network.whitening.weight.clone()
    network.init_whitening(torch.split(images, 7))
    torch.testing.assert_close(network.whitening.weight, whole, rtol=1e-3, atol=1e-4)


def test_first_filters_pass_their_channels_through() -> None:
    network = Fast((1, 8, 8), 2, 4, (1, 2))
    for conv in (m for m in network.groups.modules() if isinstance(m, nn.Conv2d)):
        same = min(conv.weight.shape[:2])
        expected = torch.zeros(same, conv.in_channels, 3, 3)
        expected[range(same), range(same), 1, 1] = 1
        assert torch.equal(conv.weight[:same].detach(), expected)


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_frozen_stages_keep_their_numbers(stages: int) -> None:
    torch.manual_seed(0)
    network = Fast((1, 8, 8), 2, 4, (1, 1))
    network.freeze(stages)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    network(torch.randn(16, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    parts = ["whitening", *(f"groups.{number}" for number in range(2))]
    for part, number in zip(parts, itertools.count(), strict=False):
        assert any(name.startswith(part) for name in changed) == (number >= stages)


def test_batched_networks_compute_what_each_would() -> None:
    torch.manual_seed(0)
    settings = ModelSettings(name="fast2")
    cnns = {s: create(settings, (2, 9, 8), 3, 4).train() for s in range(3)}
    images = torch.randn(3, 7, 2, 9, 8)
    for cnn, batch in zip(cnns.values(), images, strict=True):
        cnn.init_whitening([batch])  # type: ignore[operator]
    unstacked = torch.stack([cnn(batch) for cnn, batch in zip(cnns.values(), images, strict=True)])
    batched = BatchedNetworks(cnns).train()(images)
    torch.testing.assert_close(batched, unstacked, rtol=1e-4, atol=1e-5)
