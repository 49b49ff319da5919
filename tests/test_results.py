"""results.json, metrics.jsonl and the tables."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hpcdd import results
from hpcdd.config import Config
from hpcdd.mesh import Mesh, Place
from hpcdd.phases.status import Status
from hpcdd.problem import pose
from hpcdd.seeding import WHOLE
from hpcdd.traffic import Traffic

STATUS = Status("local", 2, 1, 5, 0.2, 0.75, 0.5, 0.7, 0.55, 1e-3, 3.5, 1234.5)


def test_traffic_is_that_of_the_rank_with_most_call_by_call_and_byte_by_byte() -> None:
    ranks = [
        {"local": Traffic(0, 0), "gather": Traffic(3, 100)},
        {"local": Traffic(0, 0), "gather": Traffic(1, 900), "telemetry": Traffic(2, 20)},
    ]
    assert results.traffic_of(ranks) == {
        "local": {"calls": 0, "bytes": 0},
        "gather": {"calls": 3, "bytes": 900},
        "telemetry": {"calls": 2, "bytes": 20},
    }
    assert results.traffic_of([]) == {}


def test_one_message_of_one_rank_is_enough_to_show() -> None:
    ranks = [{"local": Traffic(0, 0)} for _ in range(100)]
    ranks[57] = {"local": Traffic(1, 8)}
    assert results.traffic_of(ranks)["local"] == {"calls": 1, "bytes": 8}


def test_metrics_are_json_lines_that_are_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = results.Metrics(path)
    metrics.add(STATUS)
    assert json.loads(path.read_text()) == {  # before the file is closed: a run may be killed
        "phase": "local", "subdomain": 2, "epoch": 1, "loss": 0.75, "accuracy": 0.5, "validation_loss": 0.7,
        "validation_accuracy": 0.55, "learning_rate": 1e-3, "seconds": 3.5, "samples_per_second": 1234.5,
    }  # fmt: skip
    metrics.add(dataclasses.replace(STATUS, phase="dnn", subdomain=WHOLE, validation_loss=None))
    metrics.close()
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["subdomain"] == 2
    assert second["subdomain"] is None
    assert second["validation_loss"] is None
    with pytest.raises(ValueError, match="closed"):
        metrics.add(STATUS)


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.write_json(path, {"a": [1, 2]})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    with pytest.raises(TypeError):
        results.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    results.write_json(path, {"b": 3})
    assert json.loads(path.read_text()) == {"b": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def accuracy(base: float) -> dict[str, Any]:
    return {"local": [base, base + 0.01], "average": base + 0.02, "majority": base + 0.03, "log_pool": base + 0.04,
            "dnn": base + 0.05}  # fmt: skip


@pytest.fixture
def content(tiny: Path) -> dict[str, Any]:
    config = Config(
        name="two", data={"file": str(tiny)}, decomposition={"grid": [1, 2]}, model={"name": "vgg2", "width": 8}
    )
    problem = pose(config)
    places = (Place(0, "node1", "cpu", "cpu", 3, (0,)), Place(1, "node2", "cpu", "cpu", 3, (1,)))
    return results.assemble(
        config,
        problem,
        Mesh(2, places),
        dnn_parameters=4321,
        accuracy={"train": accuracy(0.5), "test": accuracy(0.4)},
        seconds={"start": 1.0, "read": 2.0, "local": [3.0, 4.5], "gather": 0.25, "dnn": 5.0, "total": 16.0},
        communication={phase: {"calls": 7, "bytes": 12345} for phase in ("local", "gather", "dnn")},
        bytes_read=[10, 20],
    )


def test_results_are_plain_data(content: dict[str, Any]) -> None:
    assert json.loads(json.dumps(content)) == content
    assert content["format"] == 1
    assert content["dataset"] == {"name": "tiny", "train": 300, "test": 90, "classes": 3, "image_shape": [1, 12, 12]}
    assert content["decomposition"] == {
        "grid": [1, 2], "overlap": [0, 0], "boxes": [[[0, 0], [12, 6]], [[0, 6], [12, 12]]],
    }  # fmt: skip
    assert content["parameters"]["dnn"] == 4321
    assert len(content["parameters"]["local"]) == 2
    assert sum(content["parameters"]["local"]) <= content["parameters"]["global"]
    assert (content["ranks"], content["hosts"], content["devices"]) == (2, 2, ["cpu", "cpu"])
    assert (content["threads_per_rank"], content["bytes_read"]) == (3, [10, 20])


def test_the_table_holds_each_local_cnn_and_strategy_with_its_accuracies(content: dict[str, Any]) -> None:
    out = io.StringIO()
    results.print_results(content, Path("runs/two-001"), out)
    text = out.getvalue()
    rows = {"local CNN 0": 0, "local CNN 1": 0.01, "average probability": 0.02, "majority vote": 0.03,
            "log-opinion pool": 0.04, "DNN": 0.05}  # fmt: skip
    for words, more in rows.items():
        (row,) = [line for line in text.splitlines() if re.search(rf"│ {words} +│", line)]
        assert re.findall(r"\d\.\d{4}", row) == [f"{0.5 + more:.4f}", f"{0.4 + more:.4f}"]
    assert "validation" not in text
    assert "tiny: two" in text
    assert "DNN 4,321" in text
    assert "local 3.0 to 4.5 per subdomain" in text
    assert "gather 7 calls, 12,345 bytes" in text
    assert "runs/two-001/results.json" in text
    assert "\x1b" not in text


def test_every_strategy_of_the_results_is_in_the_table() -> None:
    from hpcdd.models.aggregators import RULES

    assert set(results.STRATEGIES) == {*RULES, "dnn"}


def test_the_plan_is_printed_with_its_warnings(tiny: Path) -> None:
    boxes = [[[0, 0], [12, 6]], [[0, 6], [12, 11]]]  # the last column of twelve is left out
    problem = pose(Config(data={"file": str(tiny)}, decomposition={"boxes": boxes}, model={"name": "vgg2", "width": 8}))
    places = (Place(0, "node1", "cpu", "cpu", 1, (0, 1)), Place(1, "node1", "cpu", "cpu", 2, ()))
    out = io.StringIO()
    results.print_plan(Mesh(2, places), problem, out)
    text = out.getvalue()
    assert "explicit boxes, 2 subimages of 12 x 5 and 12 x 6 pixels" in text
    assert re.search(r"memory on root for the local decisions: [\d.]+ MiB of [\d,]+ MiB that are free", text)
    assert "leave 8.3% of the image out" in text
    assert "rank 0 on node1, cpu, 1 thread: subdomain 0, 1" in text
    assert "rank 1 on node1, cpu, 2 threads: no subdomain" in text
    assert "warning: 2 ranks for 2 subdomains: rank 1 has nothing to do" in text


def test_metrics_without_a_number_are_null_not_nan(tmp_path: Path) -> None:
    metrics = results.Metrics(tmp_path / "metrics.jsonl")
    metrics.add(dataclasses.replace(STATUS, validation_loss=float("nan")))
    metrics.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)["validation_loss"] is None


def test_a_name_that_looks_like_markup_is_printed_as_it_is(content: dict[str, Any], tmp_path: Path) -> None:
    out = io.StringIO()
    results.print_results({**content, "dataset": {**content["dataset"], "name": "a[/b] [small]"}}, tmp_path, out)
    assert "a[/b] [small]" in out.getvalue()
