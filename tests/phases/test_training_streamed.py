"""Training on samples that stay in the file: as from memory, and no thread is left, however it ends."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hpcdd.config import Config, TrainingSettings
from hpcdd.data import order
from hpcdd.data.loading import Storage
from hpcdd.data.reading import BoxReader
from hpcdd.data.samples import AnySamples
from hpcdd.data.write import Split, write_dataset
from hpcdd.errors import StopRequest
from hpcdd.models.vgg import VGG
from hpcdd.phases.status import Hooks, Status
from hpcdd.phases.training import evaluate, train
from hpcdd.problem import pose

STREAM, BLOCKS, PLAIN = Storage("stream", by_blocks=True), Storage("memory", by_blocks=True), Storage("memory")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes, one after the other, with much noise; windows of a quarter of the training split."""
    generator = np.random.default_rng(0)
    labels = np.arange(640) // 320
    images = generator.integers(0, 150, (640, 1, 8, 8)).astype(np.uint8)
    images[labels == 1, :, ::2] += 40
    split = Split.from_array(images, labels)
    write_dataset(tmp_path / "d.h5", {"train": split, "test": split}, name="d", class_names="ab")
    monkeypatch.setattr(order, "WINDOW_BYTES", 128 * 64)
    return tmp_path / "d.h5"


def samples(file: Path, storage: Storage) -> dict[str, AnySamples]:
    problem = pose(Config(data={"file": str(file), "validation_fraction": 0.2}, model={"name": "vgg1"}))
    return {**problem.read_whole(BoxReader(file), "cpu", storage)}


def trained(
    splits: dict[str, AnySamples], seed: int, hooks: Hooks | None = None, **settings: int
) -> tuple[nn.Module, list[Status]]:
    torch.manual_seed(seed)
    network, statuses = VGG(1, (1, 8, 8), 2, 4, (0.0, 0.1)), []
    chosen = TrainingSettings(**{"epochs": 3, "batch_size": 30, "learning_rate": 3e-3, **settings})
    hooks = hooks or Hooks(epoch=statuses.append)
    train(network, splits["train"], splits["validation"], chosen, seed=seed, phase="local", hooks=hooks)
    return network, statuses


def test_the_bits_are_those_of_memory_in_the_same_order(file: Path) -> None:
    (one, statuses), (other, expected) = (trained(samples(file, storage), 1) for storage in (STREAM, BLOCKS))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert [s.validation_loss for s in statuses] == [s.validation_loss for s in expected]
    assert [s.loss for s in statuses] == [s.loss for s in expected]


def test_losses_by_blocks_are_like_those_of_a_full_shuffle(file: Path) -> None:
    """In distribution: means over seeds, epoch by epoch, against the spread between seeds."""
    curves = {
        storage: np.array([[s.loss for s in trained(samples(file, storage), seed, epochs=6)[1]] for seed in range(5)])
        for storage in (BLOCKS, PLAIN)
    }
    mean, spread = ({k: f(v, axis=0) for k, v in curves.items()} for f in (np.mean, np.std))
    assert (mean[PLAIN][0] - mean[PLAIN][-1]) > 4 * spread[PLAIN][-1]  # there is something to be seen
    error = np.sqrt((spread[BLOCKS] ** 2 + spread[PLAIN] ** 2) / 4)
    assert (np.abs(mean[BLOCKS] - mean[PLAIN]) < 5 * error).all()


def test_it_ends_early_and_leaves_no_thread(file: Path) -> None:
    splits, count = samples(file, STREAM), iter(range(1000))

    def stop() -> None:
        if next(count) == 5:
            assert any(thread.name.startswith("hpcdd-stream") for thread in threading.enumerate())
            raise StopRequest(signal.SIGTERM, "local")

    with pytest.raises(StopRequest):
        trained(splits, 0, Hooks(step=stop))
    assert not any(thread.name.startswith("hpcdd-stream") for thread in threading.enumerate())
    network, statuses = trained(splits, 0, epochs=50, early_stopping=2)
    assert len(statuses) < 50
    assert evaluate(network, splits["validation"]) == evaluate(network, samples(file, BLOCKS)["validation"])
    assert not any(thread.name.startswith("hpcdd-stream") for thread in threading.enumerate())
