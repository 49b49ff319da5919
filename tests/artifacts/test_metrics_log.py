"""metrics.jsonl."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from hpcdd.artifacts.metrics_log import MetricsLog, read
from hpcdd.core.errors import UserError
from hpcdd.core.seeding import WHOLE
from hpcdd.training.status import Status

STATUS = Status("local", 2, 1, 5, 0.2, 0.75, 0.5, 0.7, 0.55, 1e-3, 3.5, 1234.5)


def test_metrics_are_json_lines_that_are_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsLog(path)
    metrics.add(STATUS.record())
    assert json.loads(path.read_text()) == {  # before the file is closed: a run may be killed
        "format": 1, "phase": "local", "subdomain": 2, "epoch": 1, "loss": 0.75, "accuracy": 0.5,
        "validation_loss": 0.7, "validation_accuracy": 0.55, "learning_rate": 1e-3, "seconds": 3.5,
        "samples_per_second": 1234.5,
    }  # fmt: skip
    metrics.add(dataclasses.replace(STATUS, phase="dnn", subdomain=WHOLE, validation_loss=None).record())
    metrics.close()
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["subdomain"] == 2
    assert second["subdomain"] is None
    assert second["validation_loss"] is None
    with pytest.raises(ValueError, match="closed"):
        metrics.add(STATUS.record())


def test_metrics_without_a_number_are_null_not_nan(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    metrics.add(dataclasses.replace(STATUS, validation_loss=float("nan")).record())
    metrics.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)["validation_loss"] is None


def test_written_lines_are_read_and_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsLog(path)
    for record in (STATUS.record(), dataclasses.replace(STATUS, epoch=2).record()):
        metrics.add(record)
    metrics.close()
    assert read(path) == (STATUS.record(), dataclasses.replace(STATUS, epoch=2).record())
    first, second = path.read_text().splitlines()
    path.write_text(first.replace('"format": 1, ', "") + "\n" + second.replace("2", "two", 1) + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl:2 is damaged"):
        read(path)
    path.write_text(first.replace('"format": 1, ', "") + "\n")  # of an earlier revision
    assert read(path) == (STATUS.record(),)
