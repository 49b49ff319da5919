"""results.json and the tables."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from hpcdd.artifacts import results, summary
from hpcdd.artifacts.results import Results
from hpcdd.config.schema import CoherentSettings, Config
from hpcdd.core.files import write_json
from hpcdd.core.names import CLASSIFIERS, TRAININGS
from hpcdd.data.problem import build_problem
from hpcdd.decomposition.rank_layout import RankLayout, RankPlacement
from hpcdd.models.aggregators import RULES
from hpcdd.mpi.traffic import Traffic


def test_traffic_is_the_maximum_over_the_ranks_of_calls_and_of_bytes() -> None:
    ranks = [
        {"local": Traffic(0, 0), "gather": Traffic(3, 100)},
        {"local": Traffic(0, 0), "gather": Traffic(1, 900), "telemetry": Traffic(2, 20)},
    ]
    assert results.traffic_of(ranks, {}) == {
        "local": {"calls": 0, "bytes": 0},
        "gather": {"calls": 3, "bytes": 900},
        "telemetry": {"calls": 2, "bytes": 20},
    }
    assert results.traffic_of([], {}) == {}


def test_messages_of_a_training_are_counted_by_step_too() -> None:
    ranks = [
        {"local": Traffic(0, 0), "coherent_transfer": Traffic(20, 4000), "global": Traffic(12, 90)},
        {"local": Traffic(0, 0), "coherent_transfer": Traffic(10, 4500), "evaluation": Traffic(3, 7)},
    ]
    assert results.traffic_of(ranks, {"coherent_transfer": 20, "global": 8}) == {
        "local": {"calls": 0, "bytes": 0},
        "coherent_transfer": {"calls": 20, "bytes": 4500, "calls_per_step": 1.0, "bytes_per_step": 225.0},
        "global": {"calls": 12, "bytes": 90, "calls_per_step": 1.5, "bytes_per_step": 11.25},
        "evaluation": {"calls": 3, "bytes": 7},
    }


def test_one_message_of_one_rank_is_enough_to_show() -> None:
    ranks = [{"local": Traffic(0, 0)} for _ in range(100)]
    ranks[57] = {"local": Traffic(1, 8)}
    assert results.traffic_of(ranks, {})["local"] == {"calls": 1, "bytes": 8}


def test_json_is_written_atomically(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": [1, 2]})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    write_json(path, {"b": 3})
    assert json.loads(path.read_text()) == {"b": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def accuracy(base: float) -> dict[str, Any]:
    return {"local": [base, base + 0.01], "average": base + 0.02, "majority": base + 0.03, "log_pool": base + 0.04,
            "dnn": base + 0.05}  # fmt: skip


def all_strategies(base: float) -> dict[str, Any]:
    """Accuracies with everything that can be trained."""
    parts = {"local": [0.1, 0.1], "average": base - 0.01, "majority": base - 0.02, "log_pool": base - 0.03}
    return {**accuracy(base), "coherent_transfer": base + 0.06, "coherent_scratch": base + 0.07, "global": base + 0.08,
            "coherent_transfer_parts": parts}  # fmt: skip


SECONDS = {"start": 1.0, "read": 2.0, "local": [3.0, 4.5], "gather": 0.25, "dnn": 5.0, "total": 16.0}
CORE_SECONDS = {"start": 2.0, "local": 11.25, "dnn": 5.5, "total": 30.0}
COUNTED = {"calls": 7, "bytes": 12345}


def assembled(tiny: Path, layout: RankLayout, decomposition: dict[str, Any], **changes: Any) -> dict[str, Any]:
    config = Config(
        name="two",
        data={"file": str(tiny)},
        decomposition={"grid": [1, 2], **decomposition},
        model={"name": "vgg2", "width": 8},
    )
    problem = build_problem(config)
    local = list(problem.widths.local_parameters)
    content: dict[str, Any] = {
        "parameters": {"global": problem.widths.global_parameters, "local": local, "dnn": 4321},
        "accuracy": {"train": accuracy(0.5), "test": accuracy(0.4)},
        "seconds": SECONDS,
        "core_seconds": CORE_SECONDS,
        "communication": dict.fromkeys(("local", "gather", "dnn"), COUNTED),
        "bytes_read": [10, 20],
    }
    return Results.model_validate({**results.facts_of(config, problem, layout), **content, **changes}).content()


def layout_of(*owned: tuple[int, ...]) -> RankLayout:
    """The ranks are placed alternately on two hosts."""
    seen: list[int] = []
    made = []
    for rank, subdomains in enumerate(owned):
        replica = sum(s in subdomains[:1] for s in seen)
        seen += subdomains
        made.append(RankPlacement(rank, f"node{rank % 2 + 1}", "cpu", "cpu", 3, subdomains, replica))
    return RankLayout(len(set(seen)), tuple(made))


@pytest.fixture
def content(tiny: Path) -> dict[str, Any]:
    return assembled(tiny, layout_of((0,), (1,)), {})


@pytest.fixture
def everything(tiny: Path) -> dict[str, Any]:
    """A run with a coarse subdomain that trained all that can be trained, without a gather."""
    per_step = {"calls": 46, "bytes": 98_765, "calls_per_step": 2.0, "bytes_per_step": 4294.13}
    later = ("coherent_transfer", "coherent_scratch", "global")
    rates_by_split = {
        split: all_strategies(base) for split, base in (("train", 0.5), ("validation", 0.3), ("test", 0.4))
    }
    return assembled(
        tiny,
        layout_of((0,), (1,), (2,)),
        {"coarse": True},
        parameters={"global": 9000, "local": [2500, 2500, 1234], "dnn": 4321, "coherent": 10_555},
        accuracy={split: {**rates, "local": [0.1, 0.2, 0.34567]} for split, rates in rates_by_split.items()},
        seconds={**{k: v for k, v in SECONDS.items() if k != "gather"}, **dict.fromkeys(later, 7.5), "record": 1.0},
        communication={**dict.fromkeys(("local", "dnn", "evaluation"), COUNTED), **dict.fromkeys(later, per_step)},
    )


def test_results_are_plain_data(content: dict[str, Any]) -> None:
    assert json.loads(json.dumps(content)) == content
    assert content["format"] == 1
    assert content["dataset"] == {
        "name": "tiny",
        "train": 300,
        "test": 90,
        "classes": 3,
        "class_names": ["two", "three", "four"],
        "image_shape": [1, 12, 12],
    }
    assert content["decomposition"] == {
        "grid": [1, 2], "overlap": [0, 0], "boxes": [[[0, 0], [12, 6]], [[0, 6], [12, 12]]], "coarse": None,
    }  # fmt: skip
    assert content["parameters"]["dnn"] == 4321
    assert len(content["parameters"]["local"]) == 2
    assert sum(content["parameters"]["local"]) <= content["parameters"]["global"]
    assert (content["ranks"], content["replicas"], content["hosts"]) == (2, 1, 2)
    assert content["devices"] == ["cpu", "cpu"]
    assert (content["threads_per_rank"], content["bytes_read"]) == (3, [10, 20])


def test_results_contain_replicas_and_the_coarse_subdomain(tiny: Path, everything: dict[str, Any]) -> None:
    assert assembled(tiny, layout_of((0,), (0,), (1,), (1,)), {})["replicas"] == 2
    assert json.loads(json.dumps(everything)) == everything
    assert everything["decomposition"]["coarse"] == [1, 2]
    assert len(everything["decomposition"]["boxes"]) == 2
    assert everything["communication"]["global"]["bytes_per_step"] == 4294.13


def test_cpu_seconds_are_summed_over_all_ranks() -> None:
    ranks = [{"start": 1.0, "local": 2.0}, {"start": 0.5, "local": 3.0, "dnn": 0.25}]
    assert results.summed(ranks) == {"start": 1.5, "local": 5.0, "dnn": 0.25, "total": 6.75}


def test_startup_is_the_longest_of_all_ranks() -> None:
    ranks = [{"imports": 1.0, "first_step": 3.0}, {"imports": 2.0}]  # the second one is idle
    assert results.longest(ranks) == {"imports": 2.0, "first_step": 3.0}


def rows(text: str) -> list[list[str]]:
    """The rows of the table: label and accuracies."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line[:1] == "│"]


def test_the_table_of_a_run_that_trained_everything(everything: dict[str, Any]) -> None:
    out = io.StringIO()
    summary.print_results(Results.model_validate(everything), Path("runs/two-001"), out)
    text = out.getvalue()
    expected = {"local CNN 0": [0.1] * 3, "local CNN 1": [0.2] * 3, "coarse CNN 2": [0.34567] * 3}
    for label, more in {
        "average probability": 0.02, "majority vote": 0.03, "log-opinion pool": 0.04, "DNN": 0.05,
        "coherent model, by transfer": 0.06, "coherent model, from scratch": 0.07, "global CNN": 0.08,
        "average probability, CNNs after coherent_transfer": -0.01,
        "majority vote, CNNs after coherent_transfer": -0.02,
        "log-opinion pool, CNNs after coherent_transfer": -0.03,
    }.items():  # fmt: skip
        expected[label] = [base + more for base in (0.5, 0.3, 0.4)]  # train, validation, test
    assert rows(text) == [[label, *[f"{value:.4f}" for value in values]] for label, values in expected.items()]
    assert "local CNNs 1,234 to 2,500 each, 6,234 in all; DNN 4,321; coherent model 10,555" in text
    assert (
        "local 3.0 to 4.5 per subdomain, dnn 5.0, coherent_transfer 7.5, coherent_scratch 7.5, global 7.5, total 16.0\n"
    ) in text
    assert "\nCPU seconds, all ranks: local 11.2, dnn 5.5, total 30.0\n" in text
    assert (
        "messages of a rank: local 7 calls, 12,345 bytes; dnn 7 calls, 12,345 bytes; coherent_transfer 2 calls" in text
    )
    assert text.count("2 calls, 4,294 bytes per step") == 3
    assert max(map(len, text.splitlines()[:-6])) <= 100


def test_the_table_holds_each_local_cnn_and_strategy_with_its_accuracies(content: dict[str, Any]) -> None:
    out = io.StringIO()
    summary.print_results(Results.model_validate(content), Path("runs/two-001"), out)
    text = out.getvalue()
    rows = {"local CNN 0": 0, "local CNN 1": 0.01, "average probability": 0.02, "majority vote": 0.03,
            "log-opinion pool": 0.04, "DNN": 0.05}  # fmt: skip
    for label, more in rows.items():
        (row,) = [line for line in text.splitlines() if re.search(rf"│ {label} +│", line)]
        assert re.findall(r"\d\.\d{4}", row) == [f"{0.5 + more:.4f}", f"{0.4 + more:.4f}"]
    assert "validation" not in text
    assert "tiny: two" in text
    assert "DNN 4,321" in text
    assert "local 3.0 to 4.5 per subdomain" in text
    assert "gather 7 calls, 12,345 bytes" in text
    assert "runs/two-001/results.json" in text
    assert "\x1b" not in text


def test_every_strategy_of_the_results_is_in_the_table() -> None:
    starts = get_args(get_args(CoherentSettings.model_fields["starts"].annotation)[0])
    assert list(CLASSIFIERS) == [*RULES, "dnn", *(f"coherent_{start}" for start in starts), "global"]
    assert set(TRAININGS) - {"local"} == set(CLASSIFIERS) - set(RULES)


def test_the_plan_is_printed_with_its_warnings(tiny: Path) -> None:
    boxes = [[[0, 0], [12, 6]], [[0, 6], [12, 11]]]  # the last column of twelve is left out
    problem = build_problem(
        Config(data={"file": str(tiny)}, decomposition={"boxes": boxes}, model={"name": "vgg2", "width": 8})
    )
    layout = RankLayout(
        2, (RankPlacement(0, "node1", "cpu", "cpu", 1, (0, 1)), RankPlacement(1, "node1", "cpu", "cpu", 2, ()))
    )
    out = io.StringIO()
    summary.print_plan(layout, problem, out)
    text = out.getvalue()
    assert "explicit boxes, 2 subimages of 12 x 5 and 12 x 6 pixels" in text
    assert re.search(r"memory on root for the outputs of the local CNNs: [\d.]+ MiB of [\d,]+ MiB free", text)
    assert "leave 8.3% of the image out" in text
    assert "rank 0 on node1, cpu, 1 thread: subdomain 0, 1" in text
    assert "rank 1 on node1, cpu, 2 threads: no subdomain" in text
    assert "warning: 2 ranks for 2 subdomains: rank 1 is idle" in text


def test_the_plan_names_replicas_and_the_coarse_subdomain(tiny: Path) -> None:
    problem = build_problem(
        Config(
            data={"file": str(tiny)},
            decomposition={"grid": [1, 2], "coarse": True},
            model={"name": "vgg2", "width": 8},
            aggregation={"placement": "distributed"},
        )
    )
    out = io.StringIO()
    summary.print_plan(layout_of((0,), (0,), (1,), (1,), (2,), (2,), ()), problem, out)
    text = out.getvalue()
    assert "decomposition: 1 x 2, 2 subimages of 12 x 6 pixels\n" in text
    assert "coarse subdomain 2: the image averaged in blocks of 1 x 2 to 12 x 6 pixels\n" in text
    assert "rank 0 on node1, cpu, 3 threads: subdomain 0, replica 0 of 2\n" in text
    assert "rank 3 on node2, cpu, 3 threads: subdomain 1, replica 1 of 2\n" in text
    assert "rank 6 on node1, cpu, 3 threads: no subdomain\n" in text
    assert "rank 6 is idle" in text
    assert "memory on root" not in text, "nothing is gathered"


def test_a_name_that_looks_like_markup_is_printed_as_it_is(content: dict[str, Any], tmp_path: Path) -> None:
    out = io.StringIO()
    named = {**content, "dataset": {**content["dataset"], "name": "a[/b] [small]"}}
    summary.print_results(Results.model_validate(named), tmp_path, out)
    assert "a[/b] [small]" in out.getvalue()
