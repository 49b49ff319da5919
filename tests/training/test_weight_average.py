"""The average of the weights: its formula, that it is what is evaluated and kept, and that a stop changes no bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hpcdd.config.schema import TrainingSettings
from hpcdd.core.errors import StopRequest
from hpcdd.training.split_evaluation import evaluate
from hpcdd.training.status import Hooks, Status
from hpcdd.training.trainer import train
from hpcdd.training.weight_average import WeightAverage

from .test_trainer import stop_at
from .test_trainer_resumed import SETTINGS, bits, figures, manager, run
from .toy import ring, small


def test_the_average_by_hand() -> None:
    network, average = nn.Linear(1, 1), WeightAverage(0.9)
    expected = None
    for step, value in enumerate([1.0, 2.0, -3.0, 5.0], 1):
        nn.init.constant_(network.weight, value)
        average.update(network, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
    assert average.state["weight"].item() == pytest.approx(expected)
    with average.shown(network):
        assert network.weight.item() == pytest.approx(expected)
    assert network.weight.item() == 5.0


def test_what_is_evaluated_and_kept_is_the_average() -> None:
    """Of a network that jumps about, the average is steadier."""
    statuses: dict[float, list[Status]] = {}
    for ema in (0.0, 0.95):
        network, ends = small(), list[Status]()
        settings = TrainingSettings(
            optimizer="sgd", learning_rate=0.5, schedule="constant", epochs=8, batch_size=20, ema=ema
        )
        train(network, ring(400), ring(400, seed=1), settings, seed=0, phase="local", hooks=Hooks(epoch=ends.append))
        assert evaluate(network, ring(400, seed=1), 100)[1] == pytest.approx(ends[-1].validation_accuracy)
        statuses[ema] = ends

    def jumps(ends: list[Status]) -> float:
        losses = [status.validation_loss or 0.0 for status in ends[2:]]
        return max(losses) - min(losses)

    assert jumps(statuses[0.95]) < jumps(statuses[0.0])


@pytest.mark.parametrize("early_stopping", [None, 1])
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_resumed_bit_by_bit(tmp_path: Path, stop: int, early_stopping: int | None) -> None:
    settings = SETTINGS.model_copy(update={"ema": 0.8, "early_stopping": early_stopping})
    whole, statuses, _ = run(None, settings, kind="normed")
    with pytest.raises(StopRequest):
        run(tmp_path, settings, stop_at(stop), kind="normed")
    resumed, again, _ = run(tmp_path, settings, kind="normed")
    assert all(map(torch.equal, bits(whole), bits(resumed)))
    assert figures(again) == figures(statuses)
    assert manager(tmp_path).load() is not None
