"""Optimizers and courses of the learning rate: what a step does, and that each learns."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from hpcdd.config.schema import TrainingSettings
from hpcdd.training.optimizers import eager, make_optimizer, make_schedule
from hpcdd.training.split_evaluation import evaluate
from hpcdd.training.status import Hooks
from hpcdd.training.trainer import train

from .toy import parameters, ring, small

OPTIMIZERS = ["adamw", "adam", "sgd"]
SCHEDULES = ["constant", "cosine", "one_cycle", "linear"]
RATES = {"adamw": 0.02, "adam": 0.02, "sgd": 0.1}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_learns(optimizer: str, schedule: str) -> None:
    network, test = small(), ring(500, seed=1)
    choice = {"optimizer": optimizer, "schedule": schedule, "learning_rate": RATES[optimizer]}
    settings = TrainingSettings(**choice, epochs=12, batch_size=32, weight_decay=1e-4)
    before, accuracy_before = evaluate(network, test, 64)
    train(network, ring(512), None, settings, seed=0, phase="local")
    loss, accuracy = evaluate(network, test, 64)
    assert accuracy_before < 0.7
    assert accuracy > 0.93
    assert loss < before / 2


def test_one_step_of_sgd_by_hand() -> None:
    samples, network = ring(8), nn.Linear(2, 2)
    reference = copy.deepcopy(network)
    nn.functional.cross_entropy(reference(samples.inputs), samples.labels).backward()
    settings = TrainingSettings(
        optimizer="sgd", momentum=0.0, weight_decay=0.0, schedule="constant", learning_rate=0.25, epochs=1, batch_size=8
    )
    train(network, samples, None, settings, seed=0, phase="local")
    for new, old in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), (old - 0.25 * old.grad).detach())


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("adamw", 3.0 * (1 - 0.1 * 0.5)),  # decoupled
        ("adam", 3.0 - 0.1),  # a part of the gradient, and the first step has the length of the rate
        ("sgd", 3.0 * (1 - 0.1 * 0.5 * 1.9)),  # a part of the gradient; Nesterov's first step is 1 + momentum long
    ],
)
def test_weight_decay_by_hand(optimizer: str, expected: float) -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 3.0)
    network.weight.grad = torch.zeros(1, 1)
    make_optimizer(network, TrainingSettings(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)).step()
    assert network.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("steps", range(1, 21))
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_few_steps_learn_as_well(schedule: str, steps: int) -> None:
    rates: list[float] = []
    hooks = Hooks(due=lambda: True, status=lambda status: rates.append(status.learning_rate))
    settings = TrainingSettings(schedule=schedule, learning_rate=0.01, epochs=steps, batch_size=10)
    train(small(), ring(10), None, settings, seed=0, phase="local", hooks=hooks)
    assert len(rates) == steps
    assert 0.79 <= max(rates) / 0.01 <= 1
    assert sum(rates) / steps >= 0.28 * 0.01


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_course_of_the_learning_rate(schedule: str) -> None:
    rates: list[float] = []
    hooks = Hooks(due=lambda: True, status=lambda status: rates.append(status.learning_rate))
    settings = TrainingSettings(schedule=schedule, learning_rate=0.01, epochs=10, batch_size=10)
    train(small(), ring(100), None, settings, seed=0, phase="local", hooks=hooks)
    assert len(rates) == 100
    top = rates.index(max(rates))
    if schedule == "constant":
        assert rates == [0.01] * 100
    elif schedule == "linear":
        assert rates[0] == pytest.approx(0.2 * 0.01)
        assert top == 20
        assert rates[10] == pytest.approx(0.6 * 0.01)
        assert rates[60] == pytest.approx((1 - 0.5 * 0.93) * 0.01)
        assert rates[-1] == pytest.approx((0.07 + 0.93 / 80) * 0.01)
    elif schedule == "cosine":
        assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * step / 100)) for step in range(100)])
    else:
        assert 28 <= top <= 30
        assert max(rates) == pytest.approx(0.01, rel=1e-2)
        assert rates[:top] == sorted(rates[:top])
        assert rates[top:] == sorted(rates[top:], reverse=True)
        assert rates[-1] < 1e-4 * 0.01


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_single_step(optimizer: str, schedule: str) -> None:
    network, steps = small(), [0]
    before = parameters(network)
    settings = TrainingSettings(optimizer=optimizer, schedule=schedule, epochs=1, batch_size=16)
    hooks = Hooks(step=lambda: steps.__setitem__(0, steps[0] + 1))
    train(network, ring(16), None, settings, seed=0, phase="local", hooks=hooks)
    assert steps == [2]  # before the step and after it
    assert parameters(network).isfinite().all()
    assert not torch.equal(parameters(network), before)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_steps_are_those_of_torch_bit_by_bit(kind: type[torch.optim.Optimizer]) -> None:
    """Through hooks, a schedule and a state that is given back in between."""
    seen: list[type] = []
    ends = []
    for without_compiler in (True, False):
        torch.manual_seed(0)
        network, samples = small(), ring(32)
        options = {"lr": 0.05, "weight_decay": 0.1, "fused": True}
        if kind is torch.optim.SGD:
            options |= {"momentum": 0.9, "nesterov": True}
        optimizer = (eager(kind) if without_compiler else kind)(network.parameters(), **options)
        optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(type(optimizer)))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=8, cycle_momentum=False)
        for step in range(8):
            optimizer.zero_grad()
            assert all(p.grad is None for p in network.parameters())
            nn.functional.cross_entropy(network(samples.inputs), samples.labels).backward()
            optimizer.step()
            schedule.step()
            if step == 3:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        ends.append(parameters(network))
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], parameters(small()))
    assert (len(seen), len(set(seen))) == (16, 2)


def test_momentum_is_what_was_asked_for_under_every_schedule() -> None:
    for schedule in SCHEDULES:
        settings = TrainingSettings(optimizer="sgd", momentum=0.5, schedule=schedule)
        optimizer = make_optimizer(small(), settings)
        make_schedule(optimizer, settings, 100)
        assert optimizer.param_groups[0]["momentum"] == 0.5


def test_the_rate_at_the_end_is_that_of_the_last_step() -> None:
    ends: list[float] = []
    settings = TrainingSettings(schedule="one_cycle", learning_rate=0.01, epochs=3, batch_size=10)
    train(
        small(),
        ring(100),
        None,
        settings,
        seed=0,
        phase="local",
        hooks=Hooks(epoch=lambda s: ends.append(s.learning_rate)),
    )
    assert ends[-1] < 1e-4 * 0.01


@pytest.mark.parametrize(("warm_up", "ends"), [(0.0, (1.0, 0.0)), (0.5, (0.0, 0.1))])
def test_both_ends_of_the_linear_schedule(warm_up: float, ends: tuple[float, float]) -> None:
    settings = TrainingSettings(schedule="linear", warm_up=warm_up, schedule_ends=ends, learning_rate=2.0)
    optimizer = make_optimizer(small(), settings)
    schedule = make_schedule(optimizer, settings, 10)
    optimizer.step()  # torch wants one before the first of the schedule
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"] / 2)
        schedule.step()
    assert rates[0] == (1.0 if warm_up == 0 else ends[0])
    assert rates[10] == pytest.approx(ends[1])
    assert max(rates) == pytest.approx(1.0)


def test_label_smoothing_is_torchs() -> None:
    samples, network = ring(8), nn.Linear(2, 2)
    reference = copy.deepcopy(network)
    nn.functional.cross_entropy(reference(samples.inputs), samples.labels, label_smoothing=0.3).backward()
    settings = TrainingSettings(
        optimizer="sgd", momentum=0, weight_decay=0, schedule="constant", learning_rate=1, batch_size=8, epochs=1
    )
    train(network, samples, None, settings.model_copy(update={"label_smoothing": 0.3}), seed=0, phase="local")
    for new, old in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), (old - old.grad).detach())
