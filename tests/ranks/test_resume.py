"""Runs that are stopped or killed and resumed on any number of ranks end as one that never was."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from hpcdd.artifacts import predictions

from ..launchers import Launcher, find
from ..waiting import LIMIT, wait_until

FAULTY, CHAIN = (Path(__file__).parent / name for name in ("faulty.py", "chain.py"))
PHASES = ("local", "dnn", "coherent_transfer", "coherent_scratch")


def write_config(path: Path, data: Path) -> Path:
    content = {
        "name": "tiny",
        "data": {"file": str(data), "validation_fraction": 0.1},
        "decomposition": {"grid": [2, 2]},
        "model": {"name": "vgg1", "width": 8},
        "local": {"epochs": 2, "batch_size": 16},
        "aggregation": {"epochs": 2, "batch_size": 16, "dropout": 0.2},
        "coherent": {"epochs": 2, "batch_size": 16, "starts": ["transfer", "scratch"], "early_stopping": 1},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config") / "tiny.yaml", tiny)


@pytest.fixture(scope="module")
def undisturbed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = next(iter(find().values())).hpcdd(4, ["train", config, "--output", "run"], folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def parameters_of(run: Path) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    with h5py.File(run / "model.h5") as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def figures_of(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what tells the time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    plain = [{k: v for k, v in line.items() if k not in ("seconds", "samples_per_second")} for line in lines]
    return sorted(plain, key=lambda line: (line["phase"], str(line["subdomain"]), line["epoch"]))


def check_same(run: Path, expected: Path) -> None:
    one, other = parameters_of(run), parameters_of(expected)
    assert one.keys() == other.keys()
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []
    assert figures_of(run) == figures_of(expected)
    results, before = (json.loads((path / "results.json").read_text()) for path in (run, expected))
    assert results["accuracy"] == before["accuracy"]
    for phase in PHASES:
        per_step = before["communication"][phase].get("calls_per_step")
        assert results["communication"][phase].get("calls_per_step") == per_step
        assert results["core_seconds"][phase] > 0
    decided, expected_ones = (predictions.read(path / "decisions.h5") for path in (run, expected))
    for kind in ("strategies", "ablation", "gradient"):
        for name, values in getattr(expected_ones, kind).items():
            assert np.array_equal(getattr(decided, kind)[name], values), (kind, name)
    assert np.array_equal(decided.confidence, expected_ones.confidence)
    assert len(results["seconds"]["local"]) == len(before["seconds"]["local"])
    assert min(results["seconds"]["local"]) > 0
    assert set(before["seconds"]) <= set(results["seconds"])


Job = tuple[int, list[str | Path], tuple[str, int, str] | None]


def run_chain(
    mpi: Launcher, folder: Path, jobs: Sequence[Job], ranks: int = 5, folders: Sequence[Path] | None = None
) -> tuple[list[int], list[str]]:
    """Runs jobs (ranks, arguments, fault) one after the other in one mpirun, each in ``folder`` or in one of its own.

    Returns:
        Their exit codes, and what they complained; the rest is in files in ``folder``, see ``chain.py``.
    """
    job_folders = [folder] * len(jobs) if folders is None else folders
    content = [
        {"ranks": n, "arguments": [str(word) for word in arguments], "fault": fault, "folder": str(job_folder)}
        for (n, arguments, fault), job_folder in zip(jobs, job_folders, strict=True)
    ]
    (folder / "jobs.json").write_text(json.dumps(content))
    done = mpi.run(ranks, [CHAIN, "jobs.json"], folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "codes.json").read_text()), json.loads((folder / "errors.json").read_text())


def test_a_run_that_is_stopped_in_two_phases_ends_as_an_undisturbed_one(
    mpi: Launcher, config: Path, tmp_path: Path
) -> None:
    """Each of its jobs on another number of ranks."""
    arguments = ["train", config, "--progress", "off", "--output"]
    jobs: list[Job] = [
        (3, [*arguments, "whole"], None),
        (2, [*arguments, "run"], ("local", 1, "SIGTERM@7")),
        (3, [*arguments, "run"], ("coherent", 0, "SIGUSR1@24")),
        (1, [*arguments, "run"], None),
    ]
    codes, errors = run_chain(mpi, tmp_path, jobs, ranks=3)
    assert codes == [0, 75, 75, 0], errors
    check_same(tmp_path / "run", tmp_path / "whole")


# Phase, rank and step of its trainings at which a signal comes; then the number of ranks to resume with.
STOPS = [
    ("local", 3, 5, "SIGTERM", 1),
    ("local", 0, 30, "SIGUSR1", 3),
    ("local", 2, 21, "SIGUSR2", 2),
    ("local", 1, 33, "SIGTERM", 4),
    ("dnn", 0, 9, "SIGUSR2", 4),
    ("dnn", 0, 20, "SIGTERM", 3),
    ("coherent", 1, 3, "SIGTERM", 2),
    ("coherent", 0, 24, "SIGTERM", 1),
    ("coherent", 3, 47, "SIGINT", 3),
    ("coherent", 2, 11, "SIGUSR1", 4),
]


@pytest.mark.slow
def test_cnns_that_are_trained_together_go_on_as_well(config: Path, tmp_path: Path) -> None:
    """To the bit on as many ranks, in the local and in the coherent phase."""
    stops = [("local", 1, 7), ("coherent", 0, 24)]
    arguments: list[str | Path] = ["train", config, "--progress", "off", "--batched", "true", "--output"]
    jobs: list[Job] = [(2, [*arguments, "whole"], None)]
    for phase, rank, step in stops:
        jobs += [(2, [*arguments, phase], (phase, rank, f"SIGTERM@{step}")), (2, [*arguments, phase, "--resume"], None)]
    codes, errors = run_chain(next(iter(find().values())), tmp_path, jobs)
    assert codes == [0, 75, 0, 75, 0], errors
    for phase, _, _ in stops:
        check_same(tmp_path / phase, tmp_path / "whole")


@pytest.mark.slow
def test_a_job_of_four_is_gone_on_with_on_any_number(
    every_mpi: Launcher, config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    stops = STOPS if every_mpi.kind == "mpich" else STOPS[::3]
    jobs: list[Job] = []
    for number, (phase, rank, step, what, ranks) in enumerate(stops):
        arguments = ["train", config, "--progress", "off", "--output", f"run-{number}"]
        jobs += [(4, arguments, (phase, rank, f"{what}@{step}")), (ranks, [*arguments, "--resume"], None)]
    codes, errors = run_chain(every_mpi, tmp_path, jobs)
    for number, (phase, _, _, what, _) in enumerate(stops):
        assert codes[2 * number : 2 * number + 2] == [130 if what == "SIGINT" else 75, 0], errors[2 * number :]
        assert f"asked to stop by {what} in phase {phase}" in errors[2 * number]
        assert f"resume it with `hpcdd train --resume --output run-{number}`" in errors[2 * number]
        assert errors[2 * number + 1] == ""
        check_same(tmp_path / f"run-{number}", undisturbed)


@pytest.mark.slow
def test_every_job_of_a_run_on_another_number_of_ranks(
    mpi: Launcher, config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Without --resume: an unfinished run in --output is resumed."""
    arguments = ["train", config, "--progress", "off", "--output", "run"]
    stops = [(4, "local", 7), (1, "local", 40), (3, "coherent", 4), (5, "coherent", 9), (2, "coherent", 18)]
    jobs: list[Job] = [(ranks, arguments, (phase, 0, f"SIGTERM@{step}")) for ranks, phase, step in stops]
    codes, errors = run_chain(mpi, tmp_path, [*jobs, (4, arguments, None)])
    assert codes == [75] * 5 + [0], errors
    check_same(tmp_path / "run", undisturbed)


# The numbers of ranks to resume with; what differs from the configuration.
FORMS = [
    ((4, 3), {"coherent.parallelism": "data"}),
    ((4,), {"aggregation.placement": "distributed"}),
    ((4,), {"reduction": "fast"}),
    # On four ranks two replicas of each subdomain.
    ((4, 3), {"decomposition.grid": "2,1", "aggregation.placement": "distributed"}),
    (
        (4,),
        {"baseline.enabled": "true", "coherent.starts": "[]", "baseline.epochs": "2", "baseline.batch_size": "16"},
    ),
    ((4,), {"data.storage": "stream", "augmentation.flip": "1"}),
]


@pytest.mark.slow
def test_so_in_the_other_forms(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    """On the same number of ranks bit by bit; on another one to rounding, where batches are shared or sums fast."""
    jobs: list[Job] = []
    expected: list[int] = []
    for number, (resumed_on, options) in enumerate(FORMS):
        more = [word for name, value in options.items() for word in (f"--{name}", value)]
        arguments = ["train", config, "--progress", "off", "--coherent.starts", '["transfer"]', *more, "--output"]
        phase = "baseline" if "baseline.enabled" in options else "coherent"
        jobs.append((4, [*arguments, f"straight-{number}"], None))
        for ranks in resumed_on:
            faults = [("local", 0, "SIGTERM@12"), (phase, 1, "SIGTERM@21"), None]
            jobs += [(4 if fault else ranks, [*arguments, f"on-{ranks}-{number}"], fault) for fault in faults]
        expected += [0, *[75, 75, 0] * len(resumed_on)]
    codes, errors = run_chain(mpi, tmp_path, jobs, ranks=4)
    assert codes == expected, errors
    for number, (resumed_on, options) in enumerate(FORMS):
        straight = parameters_of(tmp_path / f"straight-{number}")
        for ranks in resumed_on:
            parameters = parameters_of(tmp_path / f"on-{ranks}-{number}")
            for name, values in straight.items():
                if ranks == 4:
                    assert np.array_equal(parameters[name], values), (options, name)
                elif not name.endswith("num_batches_tracked"):
                    far = np.abs(parameters[name] - values) > 2e-2 * np.abs(values) + 2e-2
                    assert far.mean() < 0.01, (options, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "rank", "step", "ranks"), [("local", 2, 25, 2), ("coherent", 3, 45, 3)], ids=["local", "coherent"]
)
def test_a_killed_rank_costs_what_came_after_its_last_checkpoint(
    mpi: Launcher, config: Path, undisturbed: Path, tmp_path: Path, phase: str, rank: int, step: int, ranks: int
) -> None:
    arguments = ["train", config, "--output", "run", "--checkpoint.every", "1 epoch"]
    killed = mpi.run(4, [FAULTY, phase, str(rank), f"SIGKILL@{step}", *arguments], tmp_path)
    assert (tmp_path / "fault").exists(), killed.stderr
    assert killed.returncode != 0
    done = mpi.hpcdd(ranks, ["train", "--resume", "--output", "run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming run" in done.stdout
    check_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_complete_phases_are_not_repeated(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    arguments = ["train", config, "--progress", "off", "--output", "run"]
    resumed: list[str | Path] = ["train", "--resume", "--output", "run"]
    codes, errors = run_chain(
        mpi, tmp_path, [(2, arguments, ("coherent", 0, "SIGTERM@5")), (2, resumed, None), (2, resumed, None)], ranks=2
    )
    assert codes == [75, 0, 0], errors
    log = (tmp_path / "run/logs/rank-0000.log").read_text()
    assert log.count("rank 0 of 2") == 2  # the third job found nothing to do
    second = log[log.rindex("rank 0 of 2") :]
    assert "phase='coherent_transfer'" in second
    assert "phase='local'" not in second
    assert "phase='dnn'" not in second
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["communication"]["gather"]["calls"] > 0  # that of the first job


@pytest.mark.slow
def test_a_damaged_cnn_behind_the_aggregation_is_trained_on_and_evaluated_again(
    mpi: Launcher, config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = ["train", config, "--progress", "off", "--output", "run", "--checkpoint.every", "1 epoch"]
    codes, errors = run_chain(mpi, tmp_path, [(2, arguments, ("coherent", 0, "SIGTERM@5"))], ranks=2)
    assert codes == [75], errors
    newest = max((tmp_path / "run/checkpoints/local/0002").glob("e*.h5"))
    newest.write_bytes(newest.read_bytes()[:-1])
    codes, errors = run_chain(mpi, tmp_path, [(2, arguments, None)], ranks=2)
    assert codes == [0], errors
    log = (tmp_path / "run/logs/rank-0001.log").read_text()  # of its owner
    assert "phase local resumes from epoch 1 and 0 steps" in log
    check_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_more_epochs_go_on_where_the_run_ended(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    constant = ["--coherent.schedule", "constant", "--coherent.early_stopping", "null", "--progress", "off"]
    train: list[str | Path] = ["train", config, *constant]
    jobs: list[Job] = [
        (2, [*train, "--output", "run", "--coherent.epochs", "1"], None),
        (2, ["train", "--resume", "--output", "run", "--local.epochs", "3"], None),
        (2, ["train", "--resume", "--output", "run", "--coherent.epochs", "2"], ("coherent", 0, "SIGTERM@5")),
        (1, ["train", "--resume", "--output", "run"], None),
        (2, [*train, "--output", "straight", "--coherent.epochs", "2"], None),
    ]
    codes, errors = run_chain(mpi, tmp_path, jobs, ranks=2)
    assert codes == [0, 2, 75, 0, 0], errors
    assert "local.epochs was 2 in run and is 3 now; it can only be increased until phase dnn has started" in errors[1]
    one, other = parameters_of(tmp_path / "run"), parameters_of(tmp_path / "straight")
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []
    resumed, expected = (json.loads((tmp_path / run / "results.json").read_text()) for run in ("run", "straight"))
    assert resumed["accuracy"] == expected["accuracy"]


@pytest.mark.slow
def test_a_second_job_is_refused_while_the_first_one_runs(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    first = mpi.start(2, ["-m", "hpcdd", "train", config, "--output", "run", "--local.epochs", "100000"], tmp_path)
    assert first.stdout is not None
    for line in first.stdout:
        if "epoch  1/" in line:
            break
    second = mpi.hpcdd(2, ["train", config, "--output", "run", "--local.epochs", "100000"], tmp_path)
    assert second.returncode == 2
    assert second.stderr.count("run is in use by a job on host ") == 1
    first.send_signal(signal.SIGTERM)
    _, err = first.communicate(timeout=LIMIT)
    assert first.returncode == 75, err
    assert not (tmp_path / "run/lock").exists()


@pytest.mark.slow
def test_a_second_signal_forces_the_end(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    """A rank that does not come to the end of its step (it sleeps in it) is ended by the second one."""
    arguments = [FAULTY, "local", "0", "hang@5", "train", config, "--output", "run"]
    process = mpi.start(1, arguments, tmp_path)
    wait_until((tmp_path / "fault").exists)
    sent = 0
    while process.poll() is None and sent < LIMIT / 2:
        process.send_signal(signal.SIGUSR1)
        sent += 1
        time.sleep(2)  # within a second of the first it would be the same request on another way
    process.communicate(timeout=LIMIT)
    assert sent >= 2
    assert process.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "rank", "what"), [("local", 1, "SIGSTOP"), ("coherent", 0, "hang")])
def test_a_rank_that_hangs_is_named_and_the_job_ends(
    mpi: Launcher, config: Path, undisturbed: Path, tmp_path: Path, phase: str, rank: int, what: str
) -> None:
    arguments = [FAULTY, phase, str(rank), f"{what}@10", "train", config, "--output", "run"]
    ended = mpi.run(3, [*arguments, "--run.stall_timeout", "8", "--checkpoint.every", "1 epoch"], tmp_path)
    assert ended.returncode != 0
    # A stopped process is named as it was at its last sign, which may be a moment older.
    name = {"local": "(start|read|local|evaluation)", "coherent": "coherent_transfer"}[phase]
    sign = "does not respond" if what == "SIGSTOP" else "makes no progress"
    lines = [line for line in ended.stderr.splitlines() if line.startswith("hpcdd: rank ")]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith(f"hpcdd: rank {rank} of 3 on ")
    assert re.search(rf", phase {name}, step \d+ ", lines[0])
    assert f"{sign} (run.stall_timeout is 8 s)" in lines[0]
    assert "Traceback" not in ended.stderr
    done = mpi.hpcdd(2, ["train", "--resume", "--output", "run"], tmp_path)
    assert done.returncode == 0, done.stderr
    check_same(tmp_path / "run", undisturbed)
