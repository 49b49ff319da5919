"""A training that is stopped and resumed ends with the bits, and the record, of one that never was."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from hpcdd.config.schema import TrainingSettings
from hpcdd.config.sections import CheckpointSettings
from hpcdd.core.errors import StopRequest
from hpcdd.data import sample_order
from hpcdd.mpi.traffic import Ledger
from hpcdd.training.checkpoints.manager import CheckpointManager, CheckpointStats, TrainingCosts
from hpcdd.training.checkpoints.snapshot import Position, Snapshot
from hpcdd.training.status import Hooks, Status
from hpcdd.training.trainer import train
from hpcdd.training.training_state import finished

from .test_trainer import stop_at
from .test_trainer_streamed import file, samples
from .toy import ring, small

__all__ = ["file"]  # a fixture

SETTINGS = TrainingSettings(epochs=3, batch_size=30)
LAST = 3 * (100 // 30)


def manager(folder: Path, every: str = "1000 epochs", stats: CheckpointStats | None = None) -> CheckpointManager:
    stats = stats or CheckpointStats(print)
    return CheckpointManager(
        folder,
        "a run",
        CheckpointSettings(every=every),
        stats,
        phase="local",
        ledger=Ledger(0),
        comm=None,
        subdomain_of=lambda _: 2,
        writes=(2,),
        reads=(2,),
    )


def network_of(kind: str) -> nn.Module:
    torch.manual_seed(1)
    if kind == "normed":
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    return small(dropout=0.3)


def run(
    folder: Path | None,
    settings: TrainingSettings = SETTINGS,
    step: Callable[[], None] = lambda: None,
    *,
    kind: str = "plain",
    every: str = "1000 epochs",
) -> tuple[nn.Module, list[Status], int]:
    network, statuses, earlier = network_of(kind), [], []
    hooks = Hooks(step=step, epoch=statuses.append, history=earlier.extend)
    checkpoints = None if folder is None else manager(folder, every)
    validation = ring(30, seed=1)
    steps = train(
        network, ring(100), validation, settings, seed=3, phase="local", subdomain=2, hooks=hooks, manager=checkpoints
    )
    return network, [*earlier, *statuses], steps


def bits(network: nn.Module) -> list[torch.Tensor]:
    return list(network.state_dict().values())


def figures(statuses: list[Status]) -> list[tuple[object, ...]]:
    """All that does not tell the time."""
    return [
        (s.epoch, s.fraction, s.loss, s.accuracy, s.validation_loss, s.validation_accuracy, s.learning_rate, s.finished)
        for s in statuses
    ]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("plain", {}),
        ("normed", {"optimizer": "sgd", "schedule": "cosine", "learning_rate": 0.1}),
        ("normed", {"optimizer": "sgd", "momentum": 0.0, "schedule": "constant"}),
        ("plain", {"optimizer": "adam", "schedule": "constant", "early_stopping": 1}),
        ("normed", {"early_stopping": 2}),
    ],
)
def test_it_may_be_stopped_at_every_step_once(tmp_path: Path, kind: str, settings: dict[str, object]) -> None:
    chosen = TrainingSettings(**{**SETTINGS.model_dump(), "epochs": 4, **settings})
    expected, statuses, steps = run(None, chosen, kind=kind)
    calls = itertools.count()
    run(None, chosen, lambda: next(calls), kind=kind)  # boundaries of steps, evaluations among them
    assert next(calls) >= steps
    stops = 0
    for stop in range(1, 4 * LAST):
        folder = tmp_path / str(stop)
        try:
            run(folder, chosen, stop_at(stop), kind=kind)
            break
        except StopRequest:
            stops += 1
        network, resumed, _ = run(folder, chosen, kind=kind)
        assert all(torch.equal(a, b) for a, b in zip(bits(network), bits(expected), strict=True)), stop
        assert figures(resumed) == figures(statuses), stop
    assert stops > steps


def test_it_may_be_stopped_at_every_step_of_one_run(tmp_path: Path) -> None:
    """Each job does one step."""
    expected, statuses, steps = run(None)
    done, stopped = 0, True
    while stopped:
        try:
            network, resumed, last = run(tmp_path, step=stop_at(2))
            stopped = False
        except StopRequest:
            done += 1
            assert done < 10 * steps
    assert last <= 1
    assert done >= steps - 1
    assert all(torch.equal(a, b) for a, b in zip(bits(network), bits(expected), strict=True))
    assert figures(resumed) == figures(statuses)


def test_a_crash_costs_what_came_after_the_last_checkpoint(tmp_path: Path) -> None:
    def crash_at(step: int) -> Callable[[], None]:
        count = itertools.count(1)

        def hook() -> None:
            if next(count) == step:
                raise RuntimeError("crash")

        return hook

    expected, statuses, steps = run(None)
    with pytest.raises(RuntimeError):
        run(
            tmp_path, step=crash_at(8), every="1 epoch"
        )  # a step of the second epoch: an epoch has three, and evaluates
    network, resumed, did = run(tmp_path)
    assert did == steps - 3
    assert all(torch.equal(a, b) for a, b in zip(bits(network), bits(expected), strict=True))
    assert figures(resumed) == figures(statuses)


def test_minutes_are_counted(tmp_path: Path) -> None:
    run(tmp_path, every="0.0000001 minutes")
    kept = sorted(path.name for path in tmp_path.glob("e*.json"))
    assert kept[-1] == "e00003-s0000000.json"
    assert kept[-2] == "e00002-s0000003.json"


def test_a_finished_training_is_not_repeated_and_may_grow(tmp_path: Path) -> None:
    expected, statuses, _ = run(tmp_path)
    assert finished(network_of("plain"), SETTINGS, manager(tmp_path / "nowhere")) is None
    network, resumed, steps = run(tmp_path)
    assert steps == 0
    assert all(torch.equal(a, b) for a, b in zip(bits(network), bits(expected), strict=True))
    assert figures(resumed) == figures(statuses)
    restored = network_of("plain")
    history = finished(restored, SETTINGS, manager(tmp_path))
    assert history is not None
    assert figures(history) == figures(statuses)
    assert all(torch.equal(a, b) for a, b in zip(bits(restored), bits(expected), strict=True))

    constant = {**SETTINGS.model_dump(), "schedule": "constant"}
    long, _, _ = run(None, TrainingSettings(**{**constant, "epochs": 5}))
    run(tmp_path / "grows", TrainingSettings(**constant))
    grown = TrainingSettings(**{**constant, "epochs": 5})
    assert finished(network_of("plain"), grown, manager(tmp_path / "grows")) is None
    network, _, steps = run(tmp_path / "grows", grown)
    assert steps == 2 * (100 // 30)
    assert all(torch.equal(a, b) for a, b in zip(bits(network), bits(long), strict=True))


def test_costs_add_up_over_jobs(tmp_path: Path) -> None:
    with pytest.raises(StopRequest):
        run(tmp_path, step=stop_at(5))
    stats = CheckpointStats(print)
    assert manager(tmp_path, stats=stats).load() is not None
    ((key, costs),) = stats.earlier.items()
    assert key == ("local", 2)
    assert isinstance(costs, TrainingCosts)
    assert costs.steps == 3  # the fifth call comes within the first epoch's evaluation or behind its steps
    assert costs.seconds > 0
    assert costs.calls == costs.bytes == 0


def test_streamed_samples_go_on_within_a_window(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_order, "WINDOW_BYTES", 128 * 64)
    splits = samples(file, "stream")

    def trained(folder: Path | None, step: Callable[[], None] = lambda: None) -> nn.Module:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Dropout(0.1))
        checkpoints = None if folder is None else manager(folder)
        settings = TrainingSettings(epochs=2, batch_size=30)
        train(
            network, splits["train"], None, settings, seed=0, phase="local", hooks=Hooks(step=step), manager=checkpoints
        )
        return network

    expected = trained(None)
    for stop in range(2, 34, 3):
        with pytest.raises(StopRequest):
            trained(tmp_path / str(stop), stop_at(stop))
        assert all(torch.equal(a, b) for a, b in zip(bits(trained(tmp_path / str(stop))), bits(expected), strict=True))


def test_a_share_of_the_clocks_is_what_a_training_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    checkpoints = manager(tmp_path)
    for seconds, fraction in ((8.0, 0.5), (4.0, 0.0), (7.0, 0.25), (12.0, 1.0)):
        clock[0] += seconds
        checkpoints.count(fraction)
    clock[0] += 1.0
    checkpoints.save(lambda: Snapshot(Position(1, 0)), steps=5)
    stats = CheckpointStats(print)
    manager(tmp_path, stats=stats).load()
    cost = stats.earlier["local", 2]
    assert (cost.seconds, cost.steps) == (8 + 0.5 * 4 + 0 * 7 + 0.25 * 12 + 1, 5)
