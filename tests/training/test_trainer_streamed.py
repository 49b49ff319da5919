"""Training on samples that stay in the file: as from memory, and no thread is left, however it ends."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hpcdd.config.schema import Config, TrainingSettings
from hpcdd.core import environment
from hpcdd.core.errors import StopRequest
from hpcdd.data import sample_order, sample_storage
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.sample_loading import Where
from hpcdd.data.samples import AnySamples
from hpcdd.data.writing import Split, write_dataset
from hpcdd.decomposition import rank_layout
from hpcdd.models.vgg import VGG
from hpcdd.mpi import communicator
from hpcdd.training.split_evaluation import evaluate
from hpcdd.training.status import Hooks, Status
from hpcdd.training.trainer import train


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes, one after the other, with much noise; windows of a quarter of the training split."""
    generator = np.random.default_rng(0)
    labels = np.arange(640) // 320
    images = generator.integers(0, 150, (640, 1, 8, 8)).astype(np.uint8)
    images[labels == 1, :, ::2] += 40
    split = Split.from_array(images, labels)
    write_dataset(tmp_path / "d.h5", {"train": split, "test": split}, name="d", class_names="ab")
    monkeypatch.setattr(sample_order, "WINDOW_BYTES", 128 * 64)
    return tmp_path / "d.h5"


def samples(file: Path, where: Where, blocks: int | None = None) -> dict[str, AnySamples]:
    problem = build_problem(Config(data={"file": str(file), "validation_fraction": 0.2}, model={"name": "vgg1"}))
    problem = problem if blocks is None else replace(problem, blocks=blocks)
    return {**problem.read_whole(BoxReader(file), "cpu", where)}


def trained(
    splits: dict[str, AnySamples], seed: int, hooks: Hooks | None = None, **settings: int
) -> tuple[nn.Module, list[Status]]:
    torch.manual_seed(seed)
    network, statuses = VGG(1, (1, 8, 8), 2, 4, (0.0, 0.1)), []
    chosen = TrainingSettings(**{"epochs": 3, "batch_size": 30, "learning_rate": 3e-3, **settings})
    hooks = hooks or Hooks(epoch=statuses.append)
    train(network, splits["train"], splits["validation"], chosen, seed=seed, phase="local", hooks=hooks)
    return network, statuses


@pytest.mark.parametrize("blocks", [None, 0], ids=["by blocks", "as begun in memory by an earlier revision"])
def test_the_bits_do_not_depend_on_where_the_samples_are(file: Path, blocks: int | None) -> None:
    (one, statuses), (other, expected) = (trained(samples(file, where, blocks), 1) for where in ("stream", "memory"))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert [s.validation_loss for s in statuses] == [s.validation_loss for s in expected]
    assert [s.loss for s in statuses] == [s.loss for s in expected]


def test_the_bits_do_not_depend_on_how_busy_the_node_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"data": {"file": str(file)}, "model": {"name": "vgg1"}, "aggregation": {"placement": "distributed"}}
    config, world, statuses_by_storage = Config.model_validate(settings), communicator.world(), {}
    problem = build_problem(config)
    for free in (1 << 30, 1 << 16):
        monkeypatch.setattr(environment, "available_memory", lambda free=free: free)
        where = sample_storage.decide(world, config, problem, rank_layout.build(world, 4, "cpu")).of(0)
        splits: dict[str, AnySamples] = {**problem.read_whole(BoxReader(file), "cpu", where)}
        splits["validation"] = splits["test"]
        statuses_by_storage[where] = trained(splits, 1)[1]
    assert statuses_by_storage.keys() == {"memory", "stream"}
    one, other = statuses_by_storage.values()
    assert [(s.loss, s.validation_loss) for s in one] == [(s.loss, s.validation_loss) for s in other]


@pytest.mark.slow
def test_losses_by_blocks_are_like_those_of_a_full_shuffle(file: Path) -> None:
    """In distribution: means over seeds, epoch by epoch, against the spread between seeds."""
    curves = {
        blocks: np.array([[s.loss for s in trained(samples(file, "memory", blocks), n, epochs=6)[1]] for n in range(5)])
        for blocks in (16, 0)
    }
    mean, spread = ({k: f(v, axis=0) for k, v in curves.items()} for f in (np.mean, np.std))
    assert (mean[0][0] - mean[0][-1]) > 4 * spread[0][-1]  # there is something to be seen
    error = np.sqrt((spread[16] ** 2 + spread[0] ** 2) / 4)
    assert (np.abs(mean[16] - mean[0]) < 5 * error).all()


def test_it_ends_early_and_leaves_no_thread(file: Path) -> None:
    splits, count = samples(file, "stream"), iter(range(1000))

    def stop() -> None:
        if next(count) == 5:
            assert any(thread.name.startswith("hpcdd-stream") for thread in threading.enumerate())
            raise StopRequest(signal.SIGTERM, "local")

    with pytest.raises(StopRequest):
        trained(splits, 0, Hooks(step=stop))
    assert not any(thread.name.startswith("hpcdd-stream") for thread in threading.enumerate())
    network, statuses = trained(splits, 0, epochs=50, early_stopping=2)
    assert len(statuses) < 50
    assert evaluate(network, splits["validation"], 30) == evaluate(network, samples(file, "memory")["validation"], 30)
    assert not any(thread.name.startswith("hpcdd-stream") for thread in threading.enumerate())
