"""``mpirun -n N python -m hpcdd train`` as a user runs it, on a small data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import hpcdd
from hpcdd.artifacts import metrics, predictions
from hpcdd.config import loading
from hpcdd.data.format import inspect
from hpcdd.data.reading import BoxReader
from hpcdd.data.writing import write_dataset
from hpcdd.decomposition.boxes import Box

from ..artifacts.networks import read_networks
from ..conftest import make_split
from ..launchers import Launcher, find
from .test_resume import Job, run_chain

SUBDOMAINS = 4


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "tiny",
                "data": {"file": str(tiny), "validation_fraction": 0.1},
                "decomposition": {"grid": [2, 2], "overlap": 1},
                "model": {"name": "vgg2", "width": 8},
                "local": {"epochs": 2, "batch_size": 16},
                "aggregation": {"epochs": 3, "batch_size": 16, "dropout": 0.2},
                "coherent": {"epochs": 2, "batch_size": 16, "starts": ["transfer", "scratch"]},
            }
        )
    )
    return path


@pytest.fixture(scope="module", params=[(1, 3), pytest.param((1, 2, 4, 5), marks=pytest.mark.slow)], ids=str)
def runs(config: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run directories by number of ranks; one mpirun starts the ranks for all."""
    folder, numbers = tmp_path_factory.mktemp("runs"), request.param
    jobs: list[Job] = [(ranks, ["train", config, "--output", folder / str(ranks)], None) for ranks in numbers]
    done = run_chain(next(iter(find().values())), folder, jobs, max(numbers))
    assert done == ([0] * len(numbers), [""] * len(numbers))
    return {ranks: folder / str(ranks) for ranks in numbers}


def results_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    return content


def coherent_losses(run: Path) -> dict[tuple[str, int], tuple[float, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["phase"], line["epoch"]): (line["loss"], line["validation_loss"])
        for line in lines
        if line["phase"].startswith("coherent")
    }


def test_the_same_accuracies_on_any_number_of_ranks(runs: dict[int, Path]) -> None:
    first = results_of(runs[1])["accuracy"]
    assert first["test"]["dnn"] > 0.6
    for ranks, run in runs.items():
        assert results_of(run)["accuracy"] == first, f"{ranks} ranks"


def test_the_same_parameters_bit_by_bit_on_any_number_of_ranks(runs: dict[int, Path]) -> None:
    first = read_networks(runs[1] / "model.h5")
    for ranks, run in runs.items():
        model = read_networks(run / "model.h5")
        for s, (one, other) in enumerate(zip(first.local, model.local, strict=True)):
            for name, tensor in one.state_dict().items():
                assert torch.equal(tensor, other.state_dict()[name]), f"{name} of subdomain {s} on {ranks} ranks"
        for strategy in ("coherent_transfer", "coherent_scratch"):
            for name, tensor in first.of_strategies[strategy].state_dict().items():
                counterpart = model.of_strategies[strategy].state_dict()[name]
                assert torch.equal(tensor, counterpart), f"{name} of {strategy} on {ranks} ranks"


def test_the_same_losses_bit_by_bit_on_any_number_of_ranks(runs: dict[int, Path]) -> None:
    first = coherent_losses(runs[1])
    assert len(first) == 4
    for ranks, run in runs.items():
        assert coherent_losses(run) == first, f"{ranks} ranks"


def test_the_same_decisions_bit_by_bit_and_the_accuracies_of_results(
    runs: dict[int, Path],
) -> None:
    first = predictions.read(runs[1] / "decisions.h5")
    assert {"dnn", "coherent_transfer", "coherent_scratch"} < first.ablation.keys()
    for ranks, run in runs.items():
        decisions, stated = predictions.read(run / "decisions.h5"), results_of(run)["accuracy"]["test"]
        for name in decisions.strategies:
            assert metrics.accuracy(decisions.predicted(name), decisions.labels) == stated[name], (ranks, name)
        assert [metrics.accuracy(of_one, decisions.labels) for of_one in decisions.local.T] == stated["local"]
        for kind in ("strategies", "ablation", "gradient"):
            for name, values in getattr(first, kind).items():
                assert values.tobytes() == getattr(decisions, kind)[name].tobytes(), (ranks, kind, name)
        assert (decisions.shown.tolist(), decisions.reasons) == (first.shown.tolist(), first.reasons)


@pytest.mark.slow
def test_the_other_mpi_gives_the_same(every_mpi: Launcher, config: Path, runs: dict[int, Path], tmp_path: Path) -> None:
    done = every_mpi.hpcdd(3, ["train", config, "--output", "run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert results_of(tmp_path / "run")["accuracy"] == results_of(runs[1])["accuracy"]


def test_no_message_in_the_local_phase_and_the_rest_counted(runs: dict[int, Path]) -> None:
    for ranks, run in runs.items():
        communication = results_of(run)["communication"]
        assert communication["local"] == {"calls": 0, "bytes": 0}
        for start in ("transfer", "scratch"):
            numbers = 16 * 128 + 1  # batch x hidden and the wish to stop, sent and received in fixed point
            per_step = {"calls_per_step": 1, "bytes_per_step": 2 * 8 * numbers}
            steps = 2 * (270 // 16)
            total = {"calls": steps, "bytes": steps * 2 * 8 * numbers}
            assert communication[f"coherent_{start}"] == total | per_step
        # Root hears at least once from every other rank, and nobody tells anything on one rank.
        assert communication["telemetry"]["calls"] >= ranks - 1
        assert (communication["telemetry"]["bytes"] > 0) == (ranks > 1)
        logits = 4 * 3 * (300 + 90)  # float32, three classes, all samples: what one subdomain sends
        away = SUBDOMAINS - {1: 4, 2: 2, 3: 1, 4: 1, 5: 1}[ranks]  # subdomains that root does not own
        assert communication["gather"]["bytes"] == away * logits


def test_each_rank_reads_its_boxes_only(runs: dict[int, Path]) -> None:
    box_bytes = 7 * 7 * (300 + 90)  # 12 x 12 pixels in 2 x 2 with overlap 1, one byte each
    owned = {1: [4], 2: [2, 2], 3: [1, 1, 2], 4: [1, 1, 1, 1], 5: [1, 1, 1, 1, 0]}
    for ranks, run in runs.items():
        assert results_of(run)["bytes_read"] == [n * box_bytes for n in owned[ranks]]


def test_results_name_the_data_set_and_the_decomposition(runs: dict[int, Path]) -> None:
    for run in runs.values():
        results = results_of(run)
        assert results["format"] == 1
        assert results["dataset"] == {
            "name": "tiny", "train": 270, "validation": 30, "test": 90, "classes": 3, "image_shape": [1, 12, 12],
            "class_names": ["two", "three", "four"],
        }  # fmt: skip
        assert results["decomposition"]["boxes"][0] == [[0, 0], [7, 7]]
        assert sum(results["parameters"]["local"]) <= results["parameters"]["global"]


def test_results_have_the_accuracy_of_every_strategy_on_every_split(runs: dict[int, Path]) -> None:
    for run in runs.values():
        accuracies = results_of(run)["accuracy"]
        assert set(accuracies) == {"train", "validation", "test"}
        for accuracy in accuracies.values():
            assert len(accuracy["local"]) == SUBDOMAINS
            assert {"average", "majority", "log_pool", "dnn", "coherent_transfer", "coherent_scratch"} < set(accuracy)
            assert {"local", "average", "majority", "log_pool"} == set(accuracy["coherent_transfer_parts"])


def test_results_have_the_seconds_of_every_phase(runs: dict[int, Path]) -> None:
    phases = {"start", "read", "local", "gather", "dnn", "coherent_transfer", "coherent_scratch", "total"}
    for run in runs.values():
        seconds, core_seconds = results_of(run)["seconds"], results_of(run)["core_seconds"]
        assert phases < set(seconds)
        assert len(seconds["local"]) == SUBDOMAINS
        assert seconds["total"] > max(seconds["local"]) > 0
        assert phases <= set(core_seconds)
        assert core_seconds["total"] > core_seconds["coherent_transfer"] > 0


def test_the_places_of_all_ranks_are_recorded(runs: dict[int, Path]) -> None:
    for ranks, run in runs.items():
        results = results_of(run)
        assert (results["ranks"], results["hosts"], results["threads_per_rank"]) == (ranks, 1, 1)
        environment = json.loads((run / "environment.json").read_text())
        assert [placement["rank"] for placement in environment["places"]] == list(range(ranks))
        assert environment["mpi_library"]
        assert len(list((run / "logs").iterdir())) == ranks


def test_metrics_have_a_line_per_epoch_and_subdomain(runs: dict[int, Path]) -> None:
    for run in runs.values():
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        local = sorted((line["subdomain"], line["epoch"]) for line in lines if line["phase"] == "local")
        assert local == [(s, epoch) for s in range(SUBDOMAINS) for epoch in (1, 2)]
        assert [line["epoch"] for line in lines if line["phase"] == "dnn"] == [1, 2, 3]
        assert [line["epoch"] for line in lines if line["phase"] == "coherent_transfer"] == [1, 2]
        assert all(0 <= line["validation_accuracy"] <= 1 and line["loss"] > 0 for line in lines)


def test_the_model_file_holds_what_the_results_say(runs: dict[int, Path], tiny: Path) -> None:
    """Someone without hpcdd's phases rebuilds the test accuracies from model.h5 and the images."""
    images, labels = BoxReader(tiny).read("test", Box((0, 0), (12, 12))), inspect(tiny).labels["test"]
    run = runs[max(runs)]
    accuracy = results_of(run)["accuracy"]["test"]
    for strategy in ("average", "majority", "log_pool", "dnn", "coherent_transfer", "coherent_scratch"):
        probabilities, local = hpcdd.load(run, strategy).decide(images)
        assert float((probabilities.argmax(1) == labels).mean()) == accuracy[strategy]
        assert (local.argmax(2) == labels[:, None]).mean(0).tolist() == accuracy["local"]


@pytest.mark.slow
def test_the_recorded_configuration_runs_again(mpi: Launcher, runs: dict[int, Path], tmp_path: Path) -> None:
    recorded = runs[1] / "config.yaml"
    assert loading.from_yaml(recorded.read_text(), "config.yaml").output is None
    done = mpi.hpcdd(2, ["train", recorded], tmp_path)  # in another folder
    assert done.returncode == 0, done.stderr
    assert results_of(tmp_path / "runs" / "tiny-001")["accuracy"] == results_of(runs[1])["accuracy"]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with volumes, a user's own network, and a configuration with explicit boxes."""
    folder = tmp_path_factory.mktemp("volumes")
    shape = (2, 6, 8, 7)
    splits = {"train": make_split(60, shape=shape), "test": make_split(30, shape=shape, seed=1)}
    write_dataset(folder / "volumes.h5", splits, name="volumes", class_names=["two", "three", "four"])
    (folder / "mine.py").write_text(
        "import math, torch\n"
        "def linear(*, input_shape, num_classes, width, hidden):\n"
        "    n = math.prod(input_shape)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(n, width * hidden), torch.nn.ReLU(),\n"
        "                               torch.nn.Linear(width * hidden, num_classes))\n"
    )
    (folder / "own.yaml").write_text(
        "data: {file: volumes.h5}\n"
        "decomposition: {boxes: [[[0, 0, 0], [4, 4, 4]], [[2, 4, 3], [6, 8, 7]], [[0, 0, 0], [6, 8, 7]]]}\n"
        "model: {name: 'mine:linear', width: 16, options: {hidden: 2}}\n"
        "local: {epochs: 3, batch_size: 10, optimizer: sgd, schedule: cosine, learning_rate: 1e-2}\n"
        "aggregation: {features: probabilities, epochs: 2, batch_size: 10}\n"
    )
    return folder


@pytest.mark.slow
def test_a_users_own_network_on_explicit_boxes_of_volumes(mpi: Launcher, volumes: Path) -> None:
    done = mpi.hpcdd(2, ["train", "own.yaml", "--output", "run"], volumes, PYTHONPATH=str(volumes))
    assert done.returncode == 0, done.stderr
    results = results_of(volumes / "run")
    assert results["decomposition"]["grid"] is None
    assert np.mean(results["accuracy"]["test"]["local"]) > 0.34


@pytest.mark.slow
def test_a_residual_network_on_explicit_boxes_of_volumes(mpi: Launcher, volumes: Path) -> None:
    options = ["--model.name", "resnet8", "--model.options", "{}", "--coherent.starts", "[]"]
    done = mpi.hpcdd(2, ["train", "own.yaml", "--output", "3d", *options], volumes)
    assert done.returncode == 0, done.stderr
    assert len(results_of(volumes / "3d")["accuracy"]["test"]["local"]) == 3
