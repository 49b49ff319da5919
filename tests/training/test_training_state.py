"""Early stopping by itself; what else a state has is tested with the trainings that are resumed from it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from hpcdd.training.training_state import EarlyStopping


def observed(stopping: EarlyStopping, network: nn.Linear, accuracies: list[float]) -> list[bool]:
    """After each epoch, in which the weights become its number, whether the training is over."""
    exhausted = []
    for epoch, accuracy in enumerate(accuracies, 1):
        nn.init.constant_(network.weight, epoch)
        stopping.observe(accuracy, network)
        exhausted.append(stopping.exhausted)
    return exhausted


def test_it_ends_once_so_many_epochs_were_not_better_and_returns_to_the_best() -> None:
    stopping, network = EarlyStopping(2), nn.Linear(1, 1)
    assert observed(stopping, network, [0.5, 0.4, 0.6, 0.6, 0.5]) == [False, False, False, False, True]
    stopping.load_best(network)
    assert network.weight.item() == 3, "the first of two that are equally good"


@pytest.mark.parametrize(("epochs", "accuracy"), [(None, 0.5), (1, None)])
def test_without_the_setting_or_a_validation_split_the_network_stays_as_it_is(
    epochs: int | None, accuracy: float | None
) -> None:
    stopping, network = EarlyStopping(epochs), nn.Linear(1, 1)
    for weight in (1.0, 2.0, 3.0):
        nn.init.constant_(network.weight, weight)
        stopping.observe(accuracy, network)
        assert not stopping.exhausted
    stopping.load_best(network)
    assert network.weight.item() == 3


def test_it_continues_from_what_a_checkpoint_keeps() -> None:
    network, stopping, resumed = nn.Linear(1, 1), EarlyStopping(2), EarlyStopping(2)
    observed(stopping, network, [0.5, 0.4])
    best, waited = json.loads(json.dumps(stopping.facts))
    resumed.restore((best, waited), {name: value.clone() for name, value in stopping.state.items()})
    assert observed(resumed, network, [0.45]) == [True]
    resumed.load_best(network)
    assert torch.equal(network.weight, torch.ones(1, 1))
