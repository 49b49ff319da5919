"""Muon: orthogonal steps of filters, alone and stacked, filters of fixed norm, SGD for everything else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hpcdd.config.schema import CoherentSettings, TrainingSettings
from hpcdd.models.batched_networks import BatchedNetworks
from hpcdd.models.coherent_model import CoherentModel
from hpcdd.models.dnn import DNN
from hpcdd.models.vgg import VGG
from hpcdd.training.muon import orthogonal
from hpcdd.training.optimizers import make_optimizer

SETTINGS = TrainingSettings(optimizer="muon", learning_rate=0.1, momentum=0.6, weight_decay=0.01)


def cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return VGG(2, (2, 8, 8), 3, 4, (0.0, 0.0))


def with_gradients(network: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    return network


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (3, 5, 40), (1, 1)], ids=str)
def test_singular_values_come_near_to_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    singular_values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert singular_values.min() > 0.3
    assert singular_values.max() < 1.3


def test_singular_vectors_stay() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(4, 9).double()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonal(matrix) @ v.T
    torch.testing.assert_close(inner, torch.diag(inner.diag()), rtol=0, atol=1e-9)


def test_filters_have_a_fixed_norm_and_steps_of_the_learning_rate() -> None:
    network = with_gradients(cnn(), 1)
    optimizer = make_optimizer(network, SETTINGS)
    filters = [p for p in network.parameters() if p.ndim == 4]
    before = [p.detach().clone() for p in filters]
    optimizer.step()
    for p, was in zip(filters, before, strict=True):
        rows = len(p)
        step = (p.detach() - was * rows**0.5 / was.norm()).flatten(1) / 0.1
        values = torch.linalg.svdvals(step)
        assert values.max() < 1.3
        assert values.min() > 0.3


def test_all_else_takes_steps_of_sgd() -> None:
    """The same bits as torch's."""
    ours, theirs = cnn(), cnn()
    others = [p for p in theirs.parameters() if p.ndim < 4]
    sgd = torch.optim.SGD(others, 0.1, 0.6, weight_decay=0.01, nesterov=True, fused=True)
    muon = make_optimizer(ours, SETTINGS)
    for seed in range(4):
        with_gradients(ours, seed)
        with_gradients(theirs, seed)
        muon.step()
        sgd.step()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, reference) == (mine.ndim < 4)


def test_stacked_networks_take_the_steps_that_each_would_alone() -> None:
    alone, together = [cnn(s) for s in range(3)], [cnn(s) for s in range(3)]
    stack = BatchedNetworks(dict(enumerate(together)))
    optimizers, optimizer = [make_optimizer(network, SETTINGS) for network in alone], make_optimizer(stack, SETTINGS)
    for step in range(3):
        for number, network in enumerate(alone):
            with_gradients(network, 10 * step + number)
        for parameter, (leaf, number) in stack.where.items():
            name = next(n for n, p in together[number].named_parameters() if p is parameter)
            grad = alone[number].get_parameter(name).grad
            if leaf.grad is None:
                leaf.grad = torch.zeros_like(leaf)
            leaf.grad[number] = grad
        for one in optimizers:
            one.step()
        optimizer.step()
    for network, member in zip(alone, together, strict=True):
        for (name, value), other in zip(network.named_parameters(), member.parameters(), strict=True):
            torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
def test_each_kind_of_parameter_has_its_rate(optimizer: str) -> None:
    torch.manual_seed(0)
    rates = {"learning_rate": 0.1, "bias_learning_rate": 0.2, "dense_learning_rate": 0.3, "dnn_learning_rate": 0.4}
    model = CoherentModel([cnn()], DNN([3], [4], 3, 0.0), "logits")
    groups = make_optimizer(model, CoherentSettings(optimizer=optimizer, **rates)).param_groups
    rate_of = {p: group["lr"] for group in groups for p in group["params"]}
    assert set(rate_of) == set(model.parameters())
    for name, p in model.named_parameters():
        kind = 0.4 if name.startswith("dnn") else {4: 0.1, 2: 0.3, 1: 0.2}[p.ndim]
        assert rate_of[p] == kind, name
    assert groups[0]["lr"] == 0.1  # that of the record


def test_without_rates_of_their_own_there_is_one_group() -> None:
    assert len(make_optimizer(cnn(), TrainingSettings()).param_groups) == 1
    assert copy.deepcopy(SETTINGS) == SETTINGS


def test_filters_that_start_at_zero_take_the_step() -> None:
    network = with_gradients(nn.Conv2d(3, 4, 3, bias=False), 1)
    nn.init.zeros_(network.weight)
    gradient = network.weight.grad.clone()
    make_optimizer(network, SETTINGS.model_copy(update={"momentum": 0.0})).step()
    torch.testing.assert_close(network.weight.detach().flatten(1), -0.1 * orthogonal(gradient.flatten(1)))
