"""Batched CNNs compute what each of them computes: outputs, gradients, running statistics, random numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpcdd.data.samples import channels_last
from hpcdd.models.batched_networks import BatchedNetworks
from hpcdd.models.resnet import ResNet
from hpcdd.models.vgg import VGG

CNNS = {
    "vgg2 2D": (lambda: VGG(2, (3, 9, 8), 4, 6, (0.2, 0.5)), (3, 9, 8)),
    "vgg2 3D": (lambda: VGG(2, (1, 5, 6, 7), 4, 6, (0.2, 0.5)), (1, 5, 6, 7)),
    "resnet8 2D": (lambda: ResNet(1, (1, 9, 8), 4, 4), (1, 9, 8)),
    "resnet8 3D": (lambda: ResNet(1, (1, 5, 6, 7), 4, 4), (1, 5, 6, 7)),
}


def cnns(kind: str, number: int = 3) -> tuple[list[nn.Module], tuple[int, ...]]:
    torch.manual_seed(0)
    make, shape = CNNS[kind]
    form = channels_last(len(shape) - 1)
    return [make().to(memory_format=form) for _ in range(number)], shape


@pytest.mark.parametrize("kind", CNNS)
def test_batched_cnns_compute_what_each_would(kind: str) -> None:
    stacked, shape = cnns(kind)
    unstacked = copy.deepcopy(stacked)
    stack = BatchedNetworks(dict(enumerate(stacked))).train()
    form = channels_last(len(shape) - 1)
    images = [torch.randn(32, *shape).to(memory_format=form) for _ in stacked]
    labels = torch.randint(0, 4, (3, 32))
    for number, generator in stack.generators.items():
        generator.manual_seed(7 + number)
    logits = stack(torch.stack(images))
    losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(3, 32).mean(1)
    losses.sum().backward()
    for number, cnn in enumerate(unstacked):
        torch.manual_seed(7 + number)
        logits_unstacked = cnn.train()(images[number])
        functional.cross_entropy(logits_unstacked, labels[number]).backward()
        assert torch.equal(torch.get_rng_state(), stack.generators[number].get_state())
        torch.testing.assert_close(logits[number], logits_unstacked, rtol=1e-4, atol=1e-4)
        for (name, parameter), leaf in zip(cnn.named_parameters(), stack.leaves, strict=True):
            assert leaf.grad is not None
            assert parameter.grad is not None
            torch.testing.assert_close(leaf.grad[number], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)
        for (name, ours), theirs in zip(stacked[number].named_buffers(), cnn.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, msg=name)


def test_training_the_stack_trains_its_cnns_and_loading_one_loads_into_the_stack() -> None:
    members, _ = cnns("vgg2 2D")
    before = [copy.deepcopy(cnn.state_dict()) for cnn in members]
    stack = BatchedNetworks(dict(enumerate(members)))
    for cnn, state in zip(members, before, strict=True):
        assert all(
            torch.equal(a, b) and a.stride() == b.stride()
            for a, b in zip(cnn.state_dict().values(), state.values(), strict=True)
        )
    with torch.no_grad():
        for leaf in stack.leaves:
            leaf.add_(1)
    for cnn, state in zip(members, before, strict=True):
        assert all(torch.equal(p, state[name] + 1) for name, p in cnn.named_parameters())
    members[1].load_state_dict(before[1])
    for number, change in ((1, 0), (2, 1)):
        for name, parameter in members[number].named_parameters():
            leaf, index = stack.where[parameter]
            assert index == number
            assert torch.equal(leaf[number], before[number][name] + change)


def test_dropout_is_off_in_evaluation_mode() -> None:
    members, shape = cnns("vgg2 2D")
    stack = BatchedNetworks(dict(enumerate(members))).eval()
    images = torch.randn(3, 5, *shape)
    each = [cnn.eval()(batch) for cnn, batch in zip(members, images, strict=True)]
    torch.testing.assert_close(stack(images), torch.stack(each), rtol=1e-4, atol=1e-5)
