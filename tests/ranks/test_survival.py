"""Jobs that lose ranks and go on, under Open MPI's fault-tolerant mode; and that the others refuse to pretend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..launchers import Launcher, find_ulfm
from .test_resume import FAULTY, check_same
from .test_resume import config as config  # noqa: PLC0414 - a fixture
from .test_resume import undisturbed as undisturbed  # noqa: PLC0414 - a fixture

SURVIVE = ["--run.survive", "true", "--checkpoint.every", "1 epoch", "--progress", "off"]


@pytest.fixture
def ulfm_mpi() -> Launcher:
    mpi = find_ulfm()
    if mpi is None:
        pytest.skip("HPCDD_TEST_ULFM names no Open MPI 5 (see CONTRIBUTING.md)")
    return mpi


@pytest.mark.parametrize(
    ("phase", "rank", "step"),
    [("local", 2, 25), ("local", 0, 12), ("coherent", 1, 45)],
    ids=["local", "root", "coherent"],
)
def test_three_of_four_finish_what_the_fourth_has_begun(
    ulfm_mpi: Launcher, config: Path, undisturbed: Path, tmp_path: Path, phase: str, rank: int, step: int
) -> None:
    arguments = [FAULTY, phase, str(rank), f"SIGKILL@{step}", "train", config, "--output", "run", *SURVIVE]
    done = ulfm_mpi.run(4, arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fault").exists()
    assert done.stderr.count(f"hpcdd: warning: rank {rank} of 4 is lost; the other 3 continue") == 1
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run/results.json").read_text())["ranks"] == 3
    check_same(tmp_path / "run", undisturbed)
    log = (tmp_path / "run/logs/rank-0001.log").read_text()
    assert log.count("rank 1 of 3") == 1


def test_a_defect_still_ends_the_whole_job(ulfm_mpi: Launcher, config: Path, tmp_path: Path) -> None:
    """There MPI_Abort would end one rank only."""
    arguments = [FAULTY, "local", "1", "raise", "train", config, "--local.epochs", "100000", *SURVIVE]
    done = ulfm_mpi.run(3, arguments, tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("RuntimeError: planted in phase local") == 1


@pytest.mark.slow
def test_it_is_refused_where_the_launcher_does_not_offer_it(every_mpi: Launcher, config: Path, tmp_path: Path) -> None:
    done = every_mpi.hpcdd(2, ["train", config, "--run.survive", "true"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("run.survive is true, but this job can't survive the loss of a rank; start it with") == 1
    assert not list(tmp_path.iterdir())
