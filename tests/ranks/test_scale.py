"""A scaling study under mpirun: points take turns, every step is there, a second job measures what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hpcdd.artifacts import scaling_log

from ..bad_input.outcome import check_text
from ..launchers import Launcher, find

pytestmark = pytest.mark.slow

RANKS = (1, 2, 3)
PHASES = ("local", "alone", "gather", "dnn", "coherent")


@pytest.fixture(scope="module")
def study(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "weak.yaml"
    config = {
        "name": "small",
        "data": {"file": str(tiny)},
        "decomposition": {"grid": [1, 2]},
        "augmentation": {"flip": [1]},
        "model": {"name": "vgg2", "width": 8},
        "local": {"batch_size": 20},
        "aggregation": {"hidden": [16]},
        "coherent": {"batch_size": 20},
    }
    content = {
        "kind": "weak",
        "phases": list(PHASES),
        "repeats": 2,
        "warm_up": 1,
        "steps": 2,
        "config": config,
    }
    path.write_text(yaml.safe_dump(content))
    return path


@dataclass(frozen=True)
class Measured:
    """The lines of the file behind a first job, one repeat, and behind a second one, which found half a line more."""

    folder: Path
    first: list[scaling_log.ScalingLine]
    lines: list[scaling_log.ScalingLine]


@pytest.fixture(scope="module")
def measured(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder, mpi = tmp_path_factory.mktemp("measured"), next(iter(find().values()))
    arguments = ["scale", study, "--ranks", ",".join(map(str, RANKS))]
    done = mpi.hpcdd(3, [*arguments, "--repeats", "1"], folder)
    assert (done.returncode, done.stderr) == (0, "")
    path = folder / "weak.jsonl"
    first = scaling_log.read(path)
    with path.open("ab") as file:
        file.write(b'{"hpcdd_scaling": 1, "ser')  # a job was killed
    done = mpi.hpcdd(3, arguments, folder)
    assert (done.returncode, done.stderr) == (0, "")
    return Measured(folder, first, scaling_log.read(path))


def test_points_are_measured_once(measured: Measured) -> None:
    assert measured.lines[: len(measured.first)] == measured.first
    expected = {(phase, ranks, repeat) for phase in PHASES for ranks in RANKS for repeat in (0, 1)}
    assert len(measured.lines) == len(expected)
    assert {line.key[1:4] for line in measured.lines} == expected
    assert len({line.job for line in measured.lines}) == 2


def test_a_line_says_where_its_ranks_were(measured: Measured) -> None:
    for line in measured.lines:
        assert line.subdomains == 2 * line.ranks == sum(placement[3] for placement in line.places)
        assert line.layout.ranks_by_host == [line.ranks]


def test_every_step_is_there(measured: Measured) -> None:
    for line in measured.lines:
        assert [step.warm_up for step in line.steps] == [True, False, False]
        assert all(0 < step.fastest <= step.slowest for step in line.steps)
        assert line.seconds >= 0.99 * sum(step.fastest for step in line.steps[1:])


def test_the_messages_of_a_step_are_counted(measured: Measured) -> None:
    message = {"local": (0, 0), "alone": (0, 0), "dnn": (0, 0), "coherent": (1, 2 * 8 * (20 * 16 + 1))}
    sent = {line.phase: (line.calls_per_step, line.bytes_per_step) for line in measured.lines if line.phase in message}
    assert sent == message


def test_a_job_that_finds_all_points_says_so(mpi: Launcher, study: Path, measured: Measured) -> None:
    done = mpi.hpcdd(1, ["scale", study], measured.folder)
    assert done.returncode == 0
    check_text(done.stdout, "weak.jsonl has all 2 repeats on 1 ranks already\n")


def test_a_study_for_more_ranks_than_there_are(mpi: Launcher, study: Path, tmp_path: Path) -> None:
    done = mpi.hpcdd(2, ["scale", study, "--ranks", "4,8"], tmp_path)
    assert done.returncode == 2
    check_text(done.stderr, "hpcdd: ranks is [4, 8], but this job has 2; start it with `mpirun -n 4` or more\n")
    assert list(tmp_path.iterdir()) == []


def test_a_point_that_can_not_be_ends_the_whole_job(mpi: Launcher, study: Path, tmp_path: Path) -> None:
    """Two ranks would share a batch of three samples; the third rank is in no point."""
    options = ["--coherent.parallelism", "data", "--shared_batches", "fast", "--coherent.batch_size", "3"]
    done = mpi.hpcdd(3, ["scale", study, "--ranks", "1,2", *options], tmp_path)
    assert done.returncode == 2
    message = "hpcdd: coherent.batch_size is 3, but 2 ranks share each batch; use 4 or more (rank 0, 1)\n"
    check_text(done.stderr, message)
    assert list(tmp_path.iterdir()) == []
