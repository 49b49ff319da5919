"""The three kinds of failure: the user's mistake, a fault on one rank, a request to stop."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..launchers import Launcher, find
from ..waiting import LIMIT, PROMPTLY, since_fault, wait_until

FAULTY = Path(__file__).parent / "faulty.py"
EPOCHS_WITHOUT_END = ["--local.epochs", "100000"]


def short(tiny: Path) -> dict[str, Any]:
    """The configuration of a short run."""
    return {
        "data": {"file": str(tiny)},
        "model": {"name": "vgg1", "width": 8},
        "local": {"epochs": 1, "batch_size": 16},
        "aggregation": {"epochs": 1, "batch_size": 16},
    }


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(short(tiny)))
    return path


# -- a fault on one rank -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "phase", "rank"), [(2, "local", 1), (3, "gather", 2)])
def test_an_exception_on_one_rank_ends_the_job(
    mpi: Launcher, config: Path, tmp_path: Path, ranks: int, phase: str, rank: int
) -> None:
    _check_fault(mpi, config, tmp_path, ranks, phase, rank)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["local", "gather"])
def test_so_with_every_mpi(every_mpi: Launcher, config: Path, tmp_path: Path, phase: str) -> None:
    _check_fault(every_mpi, config, tmp_path, 3, phase, 1)


def _check_fault(mpi: Launcher, config: Path, folder: Path, ranks: int, phase: str, rank: int) -> None:
    # In the local phase the others would train for ever; in the others they sleep.
    options = EPOCHS_WITHOUT_END if phase == "local" else []
    done = mpi.run(ranks, [FAULTY, phase, str(rank), "raise", "train", config, *options], folder)
    assert since_fault(folder) < PROMPTLY
    assert done.returncode == 1, done.stderr
    assert f"hpcdd: rank {rank} of {ranks} on " in done.stderr
    assert f"failed in phase {phase}" in done.stderr
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert f"RuntimeError: planted in phase {phase}" in done.stderr
    assert not list(folder.glob("runs/*/results.json"))
    assert f"planted in phase {phase}" in next(folder.glob(f"runs/*/logs/rank-{rank:04d}.log")).read_text()


@pytest.mark.slow
def test_a_cnn_that_one_rank_can_not_import_is_found_before_any_work(
    mpi: Launcher, config: Path, tmp_path: Path
) -> None:
    """As where a launcher does not pass PYTHONPATH on to other hosts."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/mycnn.py").write_text(
        "import math, torch\n"
        "def make(*, input_shape, num_classes, width):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), num_classes))\n"
    )
    (tmp_path / "start.py").write_text(
        "import sys\nfrom hpcdd.cli import main as cli\nfrom hpcdd.mpi import launcher\n"
        "if launcher.from_environment().rank == 0:\n    sys.path.append('modules')\n"
        "sys.exit(cli.main())\n"
    )
    options = ["--model.name", "mycnn:make", "--model.local_width", "4", "--output", "run"]
    done = mpi.run(2, ["start.py", "train", config, *options], tmp_path)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("hpcdd: ")]
    assert "model.name is 'mycnn:make', but it can't be imported (ModuleNotFoundError: " in line
    assert "mpirun -x PYTHONPATH" in line
    assert line.endswith(" (rank 1)")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_job_and_says_what_to_try(
    mpi: Launcher, config: Path, tmp_path: Path
) -> None:
    done = mpi.hpcdd(2, ["train", config, "--local.learning_rate", "1e38", *EPOCHS_WITHOUT_END], tmp_path)
    assert done.returncode == 3
    assert "the training loss of subdomain " in done.stderr
    assert "is nan in epoch 1; try a smaller local.learning_rate" in done.stderr
    assert "Traceback" not in done.stderr


# -- a request to stop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"))],
)
def test_a_signal_to_one_rank_stops_all(mpi: Launcher, config: Path, tmp_path: Path, name: str) -> None:
    rank = 2 if name == "SIGTERM" else 0
    arguments = [FAULTY, "local", str(rank), name, "train", config, *EPOCHS_WITHOUT_END]
    done = mpi.run(3, arguments, tmp_path)
    assert since_fault(tmp_path) < PROMPTLY
    assert done.returncode == (130 if name == "SIGINT" else 75)
    assert done.stderr.count(f"hpcdd: asked to stop by {name} in phase local; the run is not complete") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "rank"), [("dnn", 0), ("gather", 1)])
def test_a_signal_stops_the_later_phases(mpi: Launcher, config: Path, tmp_path: Path, phase: str, rank: int) -> None:
    done = mpi.run(2, [FAULTY, phase, str(rank), "SIGTERM", "train", config, "--aggregation.epochs", "1000"], tmp_path)
    assert done.returncode == 75, done.stderr
    assert "asked to stop by SIGTERM" in done.stderr
    assert since_fault(tmp_path) < PROMPTLY


def test_sigterm_to_mpirun_stops_all_in_good_order(every_mpi: Launcher, config: Path, tmp_path: Path) -> None:
    process = every_mpi.start(3, ["-m", "hpcdd", "train", config, *EPOCHS_WITHOUT_END], tmp_path)
    _wait_for(process, "epoch  2/")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LIMIT)
    assert "hpcdd: asked to stop by SIGTERM in phase local; the run is not complete" in err
    assert "Traceback" not in err
    assert process.returncode == {"mpich": 75, "openmpi": 1}[every_mpi.kind]  # 1: mpirun's own


@pytest.mark.slow
def test_a_signal_after_the_last_phase_leaves_a_complete_run_complete(
    mpi: Launcher, config: Path, tmp_path: Path
) -> None:
    arguments = ["train", config, "--output", "run", "--run.report", "true"]
    process = mpi.start(2, [FAULTY, "report", "0", "pause", *arguments], tmp_path)
    wait_until((tmp_path / "fault").exists)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert (tmp_path / "run/results.json").exists()
    assert (tmp_path / "run/report.html").exists()


def _wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"{text!r} was not printed; {process.communicate()[1]}")


# -- the user's mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.every_mpi
@pytest.mark.skipif(len(find()) < 2, reason="needs the mpirun of MPICH and of Open MPI")
@pytest.mark.parametrize("kind", ["mpich", "openmpi"])
def test_singletons_are_refused_with_the_fix(kind: str, tmp_path: Path) -> None:
    other = next(launcher for launcher in find().values() if launcher.kind != kind)
    done = replace(find()[kind], environment=other.environment).hpcdd(3, ["train"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("started 3 processes, but they can't connect") == 1
    assert "use this library's own mpirun" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
