"""The numbers of a running training: sums, statuses, what a checkpoint keeps of them, and a loss that is not finite."""

from __future__ import annotations

import json
import math

import pytest
import torch

from hpcdd.config.schema import TrainingSettings
from hpcdd.core.errors import DivergedError
from hpcdd.core.names import TrainingName
from hpcdd.core.seeding import WHOLE
from hpcdd.training.status import RunningMetrics

LOGITS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0]])


def running(phase: TrainingName = "local", subdomain: int = 2) -> RunningMetrics:
    """Two epochs of two steps with three samples."""
    return RunningMetrics(phase, subdomain, TrainingSettings(epochs=2, batch_size=3), 6, torch.device("cpu"))


def test_loss_and_accuracy_are_means_over_the_samples_of_the_epoch_so_far() -> None:
    metrics = running()
    metrics.begin_step(0.5)
    metrics.add(torch.tensor(2.0), LOGITS, torch.tensor([0, 1, 1]))
    status = metrics.status()
    assert (status.loss, status.accuracy) == (2.0, pytest.approx(2 / 3))
    assert (status.epoch, status.epochs, status.fraction, status.learning_rate) == (0, 2, 0.25, 0.5)
    metrics.add(torch.tensor(7.0), LOGITS, torch.tensor([1, 1, 1]))
    status = metrics.end_epoch(last=False)
    assert (status.loss, status.accuracy) == (4.5, 3 / 6)
    assert (status.epoch, status.fraction, status.finished) == (1, 0.5, False)
    metrics.add(torch.tensor(1.0), LOGITS, torch.tensor([0, 1, 0]))
    assert (metrics.status().loss, metrics.status().accuracy) == (1.0, 1.0)
    assert metrics.steps_in_all == 3


@pytest.mark.parametrize(("epochs", "last", "finished"), [(1, False, False), (1, True, True), (2, False, True)])
def test_the_last_epoch_is_that_of_the_settings_or_that_in_which_a_training_stops_early(
    epochs: int, last: bool, finished: bool
) -> None:
    metrics = running()
    statuses = [metrics.end_epoch(last=last and epoch + 1 == epochs) for epoch in range(epochs)]
    assert statuses[-1].finished == finished
    assert metrics.history == statuses


def test_a_resumed_training_has_the_numbers_of_the_one_that_was_interrupted() -> None:
    metrics = running()
    metrics.begin_step(0.25)
    metrics.end_epoch(last=False)
    metrics.add(torch.tensor(2.0), LOGITS, torch.tensor([0, 1, 1]))
    facts = json.loads(json.dumps(metrics.facts(metrics.sums)))
    resumed, of_another_rank = running(), running()
    resumed.restore(1, 1, facts, counts=True)
    of_another_rank.restore(1, 1, facts, counts=False)
    for name in ("loss", "accuracy", "epoch", "fraction", "learning_rate"):
        assert getattr(resumed.status(), name) == getattr(metrics.status(), name)
    assert resumed.history == metrics.history
    assert resumed.status().seconds >= facts["seconds"]
    assert of_another_rank.sums.tolist() == [0, 0, 0], "the sums of all ranks are counted once"
    assert of_another_rank.steps_in_all == 3


def test_sums_that_move_into_another_tensor_are_those_of_the_status() -> None:
    metrics, sums = running(), torch.empty(3, dtype=torch.float64)
    metrics.add(torch.tensor(2.0), LOGITS, torch.tensor([0, 1, 1]))
    metrics.sum_in(sums)
    sums += torch.tensor([14.0, 1.0, 2.0])  # as a recorded graph does
    metrics.end_step()
    assert (metrics.status().loss, metrics.status().accuracy) == (4.0, 3 / 5)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("phase", "subdomain", "expected"),
    [
        ("local", 3, ("subdomain 3", "local.learning_rate", "local.precision fp32")),
        ("dnn", WHOLE, ("the DNN", "aggregation.learning_rate", None)),
        ("coherent_transfer", WHOLE, ("the coherent model (transfer)", "coherent.learning_rate", "coherent.precision")),
        ("global", WHOLE, ("the global CNN", "baseline.learning_rate", "baseline.precision fp32")),
    ],
)
def test_a_loss_that_is_not_finite_is_reported_with_the_settings_to_change(
    loss: float, phase: TrainingName, subdomain: int, expected: tuple[str, str, str | None]
) -> None:
    metrics, (who, rate, precision) = running(phase, subdomain), expected
    metrics.add(torch.tensor(loss), LOGITS, torch.tensor([0, 1, 1]))
    for report in (metrics.status, lambda: metrics.end_epoch(last=False)):
        with pytest.raises(DivergedError) as raised:
            report()
        assert f"of {who} is {loss} in epoch 1" in str(raised.value)
        assert f"a smaller {rate}" in str(raised.value)
        assert ("precision" in str(raised.value)) == (precision is not None)
        assert precision is None or precision in str(raised.value)
