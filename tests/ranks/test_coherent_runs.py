"""Whole runs with a coherent phase: its forms against each other, and what ends them early."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import hpcdd
from hpcdd.config.loading import from_yaml
from hpcdd.data.format import inspect
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.writing import write_dataset
from hpcdd.decomposition.boxes import Box
from hpcdd.decomposition.rank_layout import assign
from hpcdd.plan import fake_networks, messages
from hpcdd.plan.memory import Memories
from hpcdd.plan.workload import Workload

from ..conftest import make_split
from ..launchers import Launcher, find
from ..waiting import LIMIT, PROMPTLY, since_fault

pytestmark = pytest.mark.slow

FAULTY = Path(__file__).parent / "faulty.py"


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that random numbers and statistics can spoil is there: augmentation, dropout, batch norm, shards.

    The learning rates are small: with larger ones these trainings amplify rounding more than a comparison can bear.
    """
    path = tmp_path_factory.mktemp("config") / "coherent.yaml"
    content = {
        "data": {"file": str(tiny), "validation_fraction": 0.1},
        "decomposition": {"grid": [1, 2], "overlap": 1, "coarse": True},
        "augmentation": {"flip": [1], "translate": 1},
        "model": {"name": "vgg2", "width": 8},
        "local": {"epochs": 1, "batch_size": 15, "learning_rate": 1e-3},
        "aggregation": {"epochs": 2, "batch_size": 15, "dropout": 0.2},
        "coherent": {"epochs": 2, "batch_size": 15, "learning_rate": 3e-4},
    }
    path.write_text(yaml.safe_dump(content))
    return path


FORMS = {
    "ordered": (1, []),
    "batched": (2, ["--batched", "true"]),
    "fast": (3, ["--reduction", "fast"]),
    "data": (2, ["--coherent.parallelism", "data"]),
    "data on one rank": (1, ["--coherent.parallelism", "data"]),
    "replicas": (7, []),
    "distributed": (2, ["--aggregation.placement", "distributed"]),
    "shared fast": (2, ["--coherent.parallelism", "data", "--shared_batches", "fast"]),
}


@pytest.fixture(scope="module")
def runs(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run in its forms."""
    folder = tmp_path_factory.mktemp("forms")
    mpi = next(iter(find().values()))
    for form, (ranks, options) in FORMS.items():
        done = mpi.hpcdd(ranks, ["train", config, "--output", folder / form, *options], folder)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    return {form: folder / form for form in FORMS}


def results_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    return content


def losses(run: Path, phase: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    phase_lines = sorted((line for line in lines if line["phase"] == phase), key=lambda line: line["subdomain"] or 0)
    return [value for line in phase_lines for value in (line["loss"], line["validation_loss"])]


@pytest.mark.parametrize("form", ["batched", "fast", "data", "data on one rank", "replicas", "distributed"])
def test_all_forms_have_the_same_losses_to_rounding(runs: dict[str, Path], form: str) -> None:
    """Dropout and batch norm included; single precision over 36 steps of Adam leaves that much."""
    for phase in ("local", "dnn", "coherent_transfer"):
        expected = losses(runs["ordered"], phase)
        assert len(expected) >= 4
        assert losses(runs[form], phase) == pytest.approx(expected, rel=2e-3), phase


def test_batch_norm_on_each_ranks_own_share_is_another_training(runs: dict[str, Path]) -> None:
    """So the test above can fail; and what `shared_batches: fast` gives up is visible."""
    exact, fast = (losses(runs[form], "coherent_transfer") for form in ("data", "shared fast"))
    assert fast != pytest.approx(exact, rel=2e-3)
    assert fast == pytest.approx(exact, rel=0.5)


def test_distributed_aggregation_gathers_nothing_and_is_as_accurate(runs: dict[str, Path]) -> None:
    results, of_root = results_of(runs["distributed"]), results_of(runs["ordered"])
    assert "gather" not in results["seconds"]
    assert "gather" not in results["communication"]
    steps = 2 * (270 // 15)
    assert results["communication"]["dnn"]["calls"] == steps
    assert results["accuracy"]["test"]["dnn"] == pytest.approx(of_root["accuracy"]["test"]["dnn"], abs=2 / 90)


def test_replicas_talk_among_themselves_in_the_local_phase(runs: dict[str, Path]) -> None:
    results = results_of(runs["replicas"])
    assert results["replicas"] == 2
    assert results["communication"]["local"]["calls"] > 0
    assert results_of(runs["fast"])["communication"]["local"] == {"calls": 0, "bytes": 0}


@pytest.fixture(scope="module")
def libraries() -> int:
    """Bytes of a process that is ready to train: a fresh one, unlike this."""
    command = [sys.executable, "-c", "from hpcdd.plan.memory import ready_bytes; print(ready_bytes('cpu'))"]
    return int(subprocess.run(command, capture_output=True, check=True, timeout=LIMIT).stdout)


@pytest.mark.parametrize("form", FORMS)
def test_the_plan_names_the_messages_that_were_sent_and_the_memory_that_was_had(
    runs: dict[str, Path], libraries: int, form: str
) -> None:
    results, config = results_of(runs[form]), from_yaml((runs[form] / "config.yaml").read_text(), "config.yaml")
    problem, ranks = build_problem(config), results["ranks"]
    steps = 270 // 15
    for phase, sent, epochs in (
        ("local", messages.local_step(config, problem, ranks), 1),
        ("dnn", messages.dnn_step(config, problem, ranks), 2),
        ("coherent_transfer", messages.coherent_step(config, problem, ranks), 2),
    ):
        counted = results["communication"][phase]
        calls, size = messages.calls_of(sent) * steps * epochs, messages.bytes_of(sent) * steps * epochs
        if phase == "local" and results["replicas"] > 1:  # the first of them broadcasts its CNN before
            state = fake_networks.local_cnn(problem, 0).state_dict().values()
            calls, size = calls + 1, size + sum(tensor.nbytes for tensor in state)
        assert (calls, size) == (counted["calls"], counted["bytes"]), phase
    if gathered := messages.gather(config, problem, ranks):
        counted = results["communication"]["gather"]
        assert (messages.calls_of(gathered), messages.bytes_of(gathered)) == (counted["calls"], counted["bytes"])
    made = Memories(Workload(config, problem), ranks, libraries)
    for rank, (block, _) in enumerate(assign(len(problem.decomposition), ranks)):
        if block:
            planned = made.of(block, "memory", is_root=rank == 0).total
            assert planned == pytest.approx(results["memory"][rank], rel=0.4)


def test_the_whole_model_is_in_the_file(runs: dict[str, Path], tiny: Path) -> None:
    """What the data-parallel form trained on every rank, and replicas on several, is one model for one process."""
    images, labels = BoxReader(tiny).read("test", Box((0, 0), (12, 12))), inspect(tiny).labels["test"]
    for form in ("data", "replicas", "distributed"):
        stated = results_of(runs[form])["accuracy"]["test"]["coherent_transfer"]
        predicted = hpcdd.load(runs[form], "coherent_transfer").predict_proba(images).argmax(1)
        assert float((predicted == labels).mean()) == stated, form


@pytest.fixture(scope="module")
def on_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes, a coarse subdomain, penultimate features, both starts, early stopping and the baseline."""
    folder = tmp_path_factory.mktemp("volumes")
    splits = {"train": make_split(60, shape=(1, 6, 8, 7)), "test": make_split(30, shape=(1, 6, 8, 7), seed=1)}
    write_dataset(folder / "volumes.h5", splits, name="volumes", class_names=["two", "three", "four"], coarse=(2, 2, 2))
    (folder / "c.yaml").write_text(
        "data: {file: volumes.h5, validation_fraction: 0.2}\n"
        "decomposition: {grid: [1, 2, 2], overlap: [0, 1, 0], coarse: true}\n"
        "model: {name: resnet8, width: 8}\n"
        "local: {epochs: 1, batch_size: 12}\n"
        "aggregation: {epochs: 1, batch_size: 12}\n"
        "coherent: {starts: [scratch, transfer], features: penultimate, epochs: 3, batch_size: 12, early_stopping: 1}\n"
        "baseline: {enabled: true, epochs: 1, batch_size: 12}\n"
    )
    done = next(iter(find().values())).hpcdd(3, ["train", "c.yaml", "--output", "run"], folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_penultimate_features_leave_the_last_layers_out(on_volumes: Path) -> None:
    accuracy = results_of(on_volumes / "run")["accuracy"]["test"]
    assert {"coherent_scratch", "coherent_transfer", "global"} < set(accuracy)
    assert "coherent_transfer_parts" not in accuracy


def test_a_coarse_subdomain_of_volumes(on_volumes: Path) -> None:
    results = results_of(on_volumes / "run")
    assert len(results["accuracy"]["test"]["local"]) == 5
    assert results["decomposition"]["coarse"] == [1, 2, 2]


def test_the_baselines_gradients_are_counted(on_volumes: Path) -> None:
    assert results_of(on_volumes / "run")["communication"]["global"]["calls_per_step"] > 1


def test_loaded_models_of_volumes_are_as_accurate_as_stated(on_volumes: Path) -> None:
    images = BoxReader(on_volumes / "volumes.h5").read("test", Box((0, 0, 0), (6, 8, 7)))
    labels = inspect(on_volumes / "volumes.h5").labels["test"]
    accuracy = results_of(on_volumes / "run")["accuracy"]["test"]
    for strategy in hpcdd.load(on_volumes / "run").strategies:
        predicted = hpcdd.load(on_volumes / "run", strategy).predict_proba(images).argmax(1)
        assert float((predicted == labels).mean()) == accuracy[strategy], strategy


# -- what ends it early ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "rank"), [(2, 1), (3, 0)])
def test_an_exception_on_one_rank_ends_the_job(
    mpi: Launcher, config: Path, tmp_path: Path, ranks: int, rank: int
) -> None:
    arguments = [FAULTY, "coherent", str(rank), "raise", "train", config, "--coherent.epochs", "100000"]
    done = mpi.run(ranks, arguments, tmp_path)
    assert since_fault(tmp_path) < PROMPTLY
    assert done.returncode == 1, done.stderr
    assert f"hpcdd: rank {rank} of {ranks} on " in done.stderr
    assert "failed in phase coherent_transfer" in done.stderr
    assert "RuntimeError: planted in phase coherent" in done.stderr


@pytest.mark.parametrize(
    ("ranks", "options"), [(3, []), (2, ["--coherent.parallelism", "data"]), (4, ["--reduction", "fast"])]
)
def test_a_stop_request_on_one_rank_stops_all_at_the_same_step(
    mpi: Launcher, config: Path, tmp_path: Path, ranks: int, options: list[str]
) -> None:
    workers = ranks if ranks < 3 else ranks // 3 * 3  # there are 3 subdomains; the other ranks are idle
    arguments = [FAULTY, "coherent", str(workers - 1), "SIGUSR1", "train", config, "--coherent.epochs", "100000"]
    done = mpi.run(ranks, [*arguments, *options], tmp_path)
    assert since_fault(tmp_path) < PROMPTLY
    assert done.returncode == 75, done.stderr
    assert done.stderr.count("hpcdd: asked to stop by SIGUSR1 in phase coherent_transfer; the run is not complete") == 1
    assert "Traceback" not in done.stderr
    steps = {path.name: path.read_text() for path in tmp_path.glob("steps-*")}
    assert len(steps) == workers
    assert len(set(steps.values())) == 1, steps


def test_a_stop_request_on_one_replica_stops_the_local_phase(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    """The other replica of its CNN at the same step, by the gradients' message; the rest of the job hears of it."""
    done = mpi.run(7, [FAULTY, "local", "3", "SIGTERM", "train", config, "--local.epochs", "100000"], tmp_path)
    assert since_fault(tmp_path) < PROMPTLY
    assert done.returncode == 75, done.stderr
    assert done.stderr.count("hpcdd: asked to stop by SIGTERM in phase local") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ranks_on_unlike_processors_train_to_the_end(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    """As :func:`test_copies_that_drift_apart_are_an_error`, in every step, on a rank that says so."""
    done = mpi.run(2, [FAULTY, "coherent", "1", "unlike@1", "train", config, "--output", "run"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "results differ in their last bits between these processors: rank 0 on " in done.stdout
    assert "; rank 1 on another processor." in done.stdout
    assert (tmp_path / "run/results.json").exists()


def test_copies_that_drift_apart_are_an_error(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    done = mpi.run(2, [FAULTY, "coherent", "1", "drift", "train", config], tmp_path)
    assert done.returncode == 1
    assert (
        "DriftError: coherent_transfer, epoch 1: copies of the DNN's common layers differ between ranks" in done.stderr
    )


def test_a_batch_too_small_to_be_shared_is_refused(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    arguments = ["train", config, "--coherent.batch_size", "2", "--coherent.parallelism", "data"]
    done = mpi.hpcdd(3, arguments, tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("coherent.batch_size is 2, but 3 ranks share each batch; use 3 or more") == 1


@pytest.mark.bench
def test_the_benchmark_prints_all_contenders(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    arguments = ["bench", "coherent", config, "--widths", "8,12", "--rounds", "2", "--steps", "2"]
    done = mpi.hpcdd(2, arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("model-parallel, ordered", "model-parallel, fast", "data-parallel, exact", "DDP (gloo)"):
        assert done.stdout.count(f"\n{name}") == 2
    assert done.stdout.count("of a step; a bare Allreduce") == 2


def test_the_benchmark_takes_no_width_of_0(mpi: Launcher, tmp_path: Path) -> None:
    done = mpi.hpcdd(2, ["bench", "coherent", "--widths", "0"], tmp_path)
    assert done.returncode == 2
    assert "--widths" in done.stderr
