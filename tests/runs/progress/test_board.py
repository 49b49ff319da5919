"""Curves for TensorBoard, read back by its own reader."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpcdd.core.errors import UserError
from hpcdd.core.seeding import WHOLE
from hpcdd.runs.progress import board
from hpcdd.runs.progress.board import Board
from hpcdd.training.status import Status

from ...launchers import Launcher


def status(phase: str, subdomain: int, epoch: int, loss: float, validation: float | None = None) -> Status:
    return Status(phase, subdomain, epoch, 3, 0.5, loss, 0.5, validation, validation, 1e-3, 1.0, 100.0)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By tag the points (step, value) of one TensorBoard run."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_each_network_has_its_curves(tmp_path: Path) -> None:
    shown = Board(tmp_path / "t")
    for epoch in (1, 2):
        for s in (0, 1):
            shown.add(status("local", s, epoch, s + 0.5 / epoch, 0.25))
    shown.add(status("dnn", WHOLE, 1, math.nan))
    points = curves(tmp_path / "t/local/0001")
    assert points["loss/training"] == [(1, 1.5), (2, 1.25)]
    assert points["loss/validation"] == points["accuracy/validation"] == [(1, 0.25), (2, 0.25)]
    assert points["learning rate"] == [(epoch, pytest.approx(1e-3)) for epoch in (1, 2)]
    assert set(curves(tmp_path / "t/dnn")) == {"accuracy/training", "learning rate"}, "no NaN, and what is not known"
    Board(tmp_path / "t")
    assert list((tmp_path / "t").iterdir()) == []


def test_a_point_that_does_not_fit_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Board(tmp_path / "t")
    shown.add(status("dnn", WHOLE, 1, 0.5))
    before = (tmp_path / "t/dnn" / board._FILE).read_bytes()
    with pytest.MonkeyPatch.context() as full:
        full.setattr(board, "_records", lambda *_, **__: FullDisk(before))
        shown.add(status("dnn", WHOLE, 2, 0.4))
    assert (tmp_path / "t/dnn" / board._FILE).read_bytes() == before
    shown.add(status("dnn", WHOLE, 3, 0.25))
    assert curves(tmp_path / "t/dnn")["loss/training"] == [(1, 0.5), (3, 0.25)]


class FullDisk(bytes):
    """Content of which a part is written, as on a full disk: it is longer than it says."""

    def __len__(self) -> int:
        return super().__len__() + 1


def test_without_the_package_nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install '\\.\\[tensorboard\\]'"):
        board.check()


@pytest.mark.slow
def test_a_run_shows_what_its_metrics_say_also_when_it_is_asked_later(
    mpi: Launcher, tiny: Path, tmp_path: Path
) -> None:
    arguments = ["train", "--data.file", str(tiny), "--model.name", "vgg1", "--model.width", "8", "--output", "run"]
    few = ["--local.epochs", "2", "--aggregation.epochs", "1", "--progress", "off"]
    none = ["--coherent.epochs", "1", "--coherent.learning_rate", "1e-9"]
    done = mpi.hpcdd(2, [*arguments, *few, *none], tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run/tensorboard").exists()
    more = ["train", "--resume", "--output", "run", "--coherent.epochs", "2", "--run.tensorboard", "true"]
    done = mpi.hpcdd(2, more, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for name, phase, subdomain in (("local/0003", "local", 3), ("coherent_transfer", "coherent_transfer", None)):
        of_network = [line for line in lines if (line["phase"], line["subdomain"]) == (phase, subdomain)]
        assert len(of_network) == 2
        expected = [(line["epoch"], pytest.approx(line["loss"])) for line in of_network]
        assert curves(tmp_path / "run/tensorboard" / name)["loss/training"] == expected
