"""Studies under mpirun: groups of two sizes, results trained once, failures that end one run, and every kind of end."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from hpcdd.artifacts import study_index
from hpcdd.data.writing import Split, write_dataset
from hpcdd.studies import study_results

from ..conftest import make_split
from ..launchers import Launcher, find
from ..waiting import LIMIT
from .test_resume import FAULTY, figures_of, parameters_of, run_chain

BASE = {
    "decomposition": {"grid": [1, 2]},
    "model": {"name": "vgg1", "width": 8},
    "local": {"epochs": 1, "batch_size": 16},
    "aggregation": {"epochs": 1, "batch_size": 16},
    "coherent": {"epochs": 1, "batch_size": 16},
    "baseline": {"epochs": 1, "batch_size": 16},
    "run": {"report": False},
}
TWO_SIZES = {"decomposition.grid": [[1, 2], [3, 1]], "coherent.dropout_scale": [1.0, 0.5]}
CASES = {
    "case": {
        "plain": {"baseline.enabled": True},
        "local": {"local.learning_rate": 1e30},
        "dnn": {"aggregation.learning_rate": 1e37, "aggregation.optimizer": "sgd"},
        "coherent": {"coherent.learning_rate": 1e37, "coherent.optimizer": "sgd"},
        "global": {"baseline.enabled": True, "baseline.learning_rate": 1e30},
        "no gpu": {"device": "cuda"},
        "other": {"baseline.enabled": True, "coherent.starts": ["scratch"]},
    }
}
IDS = [f"grid={grid},dropout_scale={scale}" for grid in ("1x2", "3x1") for scale in ("1.0", "0.5")]


def write(folder: Path, name: str, data: Path, matrix: dict[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    config = {**BASE, "data": {"file": str(data), "validation_fraction": 0.1}}
    path.write_text(yaml.safe_dump({"config": config, "matrix": matrix, "expect": ["dnn > average"]}, sort_keys=False))
    return path


def kill(mpi: Launcher, study: Path, folder: Path) -> None:
    """Starts a study on two ranks, and kills it while its second run is at work."""
    process = mpi.start(2, ["-m", "hpcdd", "study", study, "--output", "killed"], folder)
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert sum(" begins on " in line for line, _ in zip(lines, range(4), strict=False)) == 2
    for victim in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # mpirun ends with its ranks
            victim.kill()
    process.communicate()


@pytest.fixture(scope="module")
def done(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int], list[str]]:
    """The folder in which many jobs have worked, and the exit codes and complaints of those in one mpirun."""
    folder = tmp_path_factory.mktemp("studies")
    mpi = next(iter(find().values()))
    study, cases = write(folder, "two", tiny, TWO_SIZES), write(folder, "cases", tiny, CASES)
    repeats = write(folder, "repeats", tiny, {"seed": [0, 1]})
    kill(mpi, study, folder)
    defect = mpi.run(2, [FAULTY, "coherent", "1", "raise", "study", repeats, "--output", "defect"], folder)
    assert defect.returncode == 1, defect.stderr
    assert "planted in phase coherent" in defect.stderr
    alone = ["train", str(folder / "undisturbed/runs" / IDS[1] / "config.yaml"), "--output", "alone"]
    jobs: list[Any] = [
        (5, ["study", study, "--output", "undisturbed", "--run.report", "true"], None),
        (2, alone, None),
        (1, ["study", study, "--output", "on-one"], None),
        (5, ["study", study, "--output", "killed"], None),
        (3, ["study", cases, "--output", "cases"], None),
        (2, ["study", repeats, "--output", "defect"], None),
        (5, ["study", repeats, "--output", "exception"], ("local", 1, "raise")),
        (5, ["study", study, "--output", "stopped"], ("coherent", 1, "SIGTERM@3")),
        (3, ["study", study, "--output", "stopped"], None),
    ]
    return folder, *run_chain(mpi, folder, jobs)


def conditions(folder: Path) -> dict[str, str]:
    return {run.entry.id: run.condition for run in study_results.read(folder).runs}


def results(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    return content


def check_same_run(run: Path, expected: Path) -> None:
    one, other = parameters_of(run), parameters_of(expected)
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []
    assert figures_of(run) == figures_of(expected)
    assert results(run)["accuracy"] == results(expected)["accuracy"]


@pytest.mark.slow
def test_all_jobs_end_as_they_should(done: tuple[Path, list[int], list[str]]) -> None:
    _, codes, errors = done
    assert codes == [0, 0, 0, 0, 1, 1, 1, 75, 0], errors
    assert [errors[number] for number in (0, 1, 2, 3, 8)] == [""] * 5
    assert errors[4] == "hpcdd: 5 runs have failed; see above\n"
    assert errors[5] == errors[6] == "hpcdd: 1 run has failed; see above\n"
    assert "hpcdd: asked to stop by SIGTERM in phase study; the run is not complete (terminated: " in errors[7]
    assert "); 4 runs in stopped: " in errors[7]
    assert errors[7].endswith("; resume it with the same command\n")


@pytest.mark.slow
def test_what_runs_share_is_trained_once_and_the_bits_are_those_of_a_run_alone(
    done: tuple[Path, list[int], list[str]],
) -> None:
    folder = done[0] / "undisturbed"
    assert conditions(folder) == dict.fromkeys(IDS, "complete")
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "report.html", "runs", "study.json", "tables"]
    assert [run.fields["coherent.dropout_scale"] for run in study_index.read(folder).runs] == [1.0, 0.5, 1.0, 0.5]
    check_same_run(folder / "runs" / IDS[1], done[0] / "alone")
    for source, receiver in ((IDS[0], IDS[1]), (IDS[2], IDS[3])):
        first, second = results(folder / "runs" / source), results(folder / "runs" / receiver)
        assert "reused" not in first
        assert second["reused"] == {"local": source}
        # What the training has cost is reported by both; the receiver's own decisions come on top.
        pairs = zip(first["seconds"]["local"], second["seconds"]["local"], strict=True)
        assert all(receivers > 0.5 * sources for sources, receivers in pairs)
        assert second["core_seconds"]["local"] > 0.5 * first["core_seconds"]["local"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["on-one", "killed", "stopped"])
def test_the_results_are_the_same_whatever_has_happened(done: tuple[Path, list[int], list[str]], name: str) -> None:
    folder = done[0]
    assert conditions(folder / name) == dict.fromkeys(IDS, "complete")
    for run in IDS:
        check_same_run(folder / name / "runs" / run, folder / "undisturbed/runs" / run)


@pytest.mark.slow
def test_a_run_that_fails_does_not_stop_the_others(done: tuple[Path, list[int], list[str]]) -> None:
    folder = done[0] / "cases"
    failed = {run.entry.id: run.error for run in study_results.read(folder).runs if run.condition == "failed"}
    assert [run for run, condition in conditions(folder).items() if condition == "complete"] == [
        "case=plain",
        "case=other",
    ]
    expected = {
        "case=local": "phase local: the training loss of subdomain 0 is nan in epoch 1",
        "case=dnn": "phase dnn: the training loss of the DNN is nan in epoch 1",
        "case=coherent": "phase coherent_transfer: a summand of the DNN's first layer is ",
        "case=global": "phase global: the training loss of the global CNN is nan in epoch 1",
        "case=no-gpu": "device is 'cuda', but torch sees no GPU",
    }
    assert failed.keys() == expected.keys()
    for run, text in expected.items():
        assert (failed[run] or "").startswith(text)
    assert results(folder / "runs/case=other")["reused"] == {"local": "case=plain", "global": "case=plain"}
    assert list((folder / "runs/case=local/logs").iterdir())
    assert not (folder / "runs/case=no-gpu").exists()  # it never began


@pytest.mark.slow
def test_an_exception_in_the_local_phase_ends_its_run_alone(done: tuple[Path, list[int], list[str]]) -> None:
    folder = done[0] / "exception"
    run_conditions = conditions(folder)
    assert sorted(run_conditions.values()) == ["complete", "failed"]
    failed = next(run for run, condition in run_conditions.items() if condition == "failed")
    text = json.loads((folder / f"failed/{failed}.json").read_text())
    assert text["exit_code"] == 1
    assert text["error"].startswith("rank 1 of 2 on ")
    assert "planted in phase local" in text["error"]


@pytest.mark.slow
def test_a_defect_amid_messages_is_recorded_before_the_job_ends(done: tuple[Path, list[int], list[str]]) -> None:
    folder = done[0] / "defect"
    assert conditions(folder) == {"seed=0": "failed", "seed=1": "complete"}
    assert "planted in phase coherent" in json.loads((folder / "failed/seed=0.json").read_text())["error"]


GIANT = """
import math
import torch

class CNN(torch.nn.Sequential):
    def forward(self, x):
        white = (x.flatten(1).amin(1) > 0).unsqueeze(1)
        return super().forward(x) + 1e9 * (white & self.training)

def make(*, input_shape, num_classes, width):
    return CNN(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), num_classes))
"""


@pytest.mark.slow
def test_what_only_some_replicas_can_not_add_ends_the_run_and_not_the_job(mpi: Launcher, tmp_path: Path) -> None:
    """One training sample makes the coherent model's sum too large, on the replicas whose rows it is among."""
    train = make_split(64)
    (images,) = train.rows(np.arange(64), lambda _: None)
    images[5] = 255
    path = tmp_path / "white.h5"
    splits = {"train": Split.from_array(images, train.labels), "test": make_split(30, seed=1)}
    write_dataset(path, splits, name="white", class_names=["two", "three", "four"])
    (tmp_path / "giant.py").write_text(GIANT)
    study = write(tmp_path, "giant", path, {"seed": [0, 1]})
    content = yaml.safe_load(study.read_text())
    content["config"] |= {"model": {"name": "giant:make", "local_width": 1}, "run": {"stall_timeout": None}}
    content["config"]["data"]["validation_fraction"] = 0.0  # which might take that sample
    study.write_text(yaml.safe_dump(content))
    done = mpi.hpcdd(4, ["study", study, "--output", "out", "--ranks", "4"], tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr == "hpcdd: 2 runs have failed; see above\n"
    failures = [json.loads((tmp_path / f"out/failed/seed={seed}.json").read_text()) for seed in (0, 1)]
    assert [failure["exit_code"] for failure in failures] == [3, 3]
    for failure in failures:
        lines = failure["error"].splitlines()
        assert all(line.startswith("phase coherent_transfer: a summand of the DNN's first layer is ") for line in lines)


@pytest.mark.slow
def test_two_jobs_at_once_do_every_run_once(mpi: Launcher, tiny: Path, tmp_path: Path) -> None:
    study = write(tmp_path, "repeats", tiny, {"seed": [0, 1, 2, 3]})
    jobs = [mpi.start(1, ["-m", "hpcdd", "study", study, "--output", "both"], tmp_path) for _ in range(2)]
    texts = [job.communicate(timeout=LIMIT) for job in jobs]
    assert [(job.returncode, err) for job, (_, err) in zip(jobs, texts, strict=True)] == [(0, "")] * 2
    assert set(conditions(tmp_path / "both").values()) == {"complete"}
    completed = [line.split()[1] for out, _ in texts for line in out.splitlines() if " is complete after " in line]
    assert sorted(completed) == [f"seed={seed}" for seed in range(4)]
    again = mpi.hpcdd(1, ["study", study, "--output", "both", "--retry"], tmp_path)
    assert again.stdout.splitlines()[0] == "4 runs in both: 4 complete"
