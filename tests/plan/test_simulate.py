"""Operations and memory of a step, against counting by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcdd.core.errors import UserError
from hpcdd.plan import fake_networks, simulate


def test_a_dense_layer_by_hand() -> None:
    with fake_networks.fake():
        network = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 3))
    step = simulate.training_step(network, lambda: torch.zeros(10, 100), 10)
    forward = 2 * 10 * (100 * 50 + 50 * 3)
    backward = forward + 2 * 10 * 50 * 3  # of both weights, and of the second layer's inputs
    assert step.flops == forward + backward
    inputs, gradients = 4 * (10 * 100 + 10 * 50 + 10 * 3), 4 * (100 * 50 + 50 + 50 * 3 + 3)
    assert inputs < step.peak_bytes < 2 * inputs + gradients
    assert all(parameter.grad is None for parameter in network.parameters())
    assert simulate.evaluation(network, lambda: torch.zeros(10, 100)).flops == forward


def test_an_evaluation_keeps_no_activations_and_a_convolution_that_is_trained_works_on_copies() -> None:
    with fake_networks.fake():
        network = nn.Sequential(*[nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(10)])
    layer, weights = 4 * 5 * 8 * 12 * 12, 10 * 4 * 8 * 8 * 9
    evaluated = simulate.evaluation(network, lambda: torch.zeros(5, 8, 12, 12))
    assert evaluated.peak_bytes == 3 * layer  # the input outside, input and output of a layer
    assert evaluated.flops == 10 * 2 * 5 * 12 * 12 * 8 * 8 * 9
    trained = simulate.training_step(nn.Sequential(network, nn.Flatten()), lambda: torch.zeros(5, 8, 12, 12), 5)
    # The input and what each layer saves; the gradient of a layer, and the one that comes of it; copies of three.
    assert 13 * layer < trained.peak_bytes <= 17 * layer + 2 * weights
    assert 11 * layer < trained.kept_bytes < 13 * layer  # the loss keeps the logarithms of the softmax as well


def test_a_network_that_needs_values_is_reported() -> None:
    class Moody(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(UserError, match="Moody can't be traced with shapes alone.*plan needs this of model.name"):
        simulate.evaluation(Moody(), lambda: torch.zeros(2, 2))
