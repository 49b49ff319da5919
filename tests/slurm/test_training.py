"""Real trainings over two nodes, by the scripts in jobs/."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..parallel.test_resume import check_same, write_config
from ..programs import JOBS, hpcdd
from .cluster import Cluster

ON_BOTH = ("--nodes=2", "--ntasks-per-node=1")
QUIET = ("--progress", "off")


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_config(folder / "tiny.yaml", tiny)
    words = ("tiny.yaml", *QUIET, "--output", "run")
    job = cluster.submit(folder, *ON_BOTH, JOBS / "train.sbatch", *words, HPCDD_VENV=hpcdd(folder))
    assert cluster.exit_code(job) == 0, (folder / f"hpcdd-{job}.out").read_text()
    return folder


def test_a_training_over_two_nodes(undisturbed: Path) -> None:
    assert sorted((undisturbed / "nodes").read_text().split()) == ["n1", "n2"]
    assert "rank 1 of 2" in (undisturbed / "run/logs/rank-0001.log").read_text()


def test_jobs_that_are_stopped_requeued_and_preempted_end_as_if_nothing_had_been(
    cluster: Cluster, undisturbed: Path, tiny: Path, tmp_path: Path
) -> None:
    """Two jobs side by side: the one starts while the other waits in the queue, as requeued jobs do."""
    folders = {name: tmp_path / name for name in ("one", "other")}
    faults = {
        "one": {0: "local 1 pause@5", 1: "coherent 0 pause@9"},
        "other": {0: "local 0 pause@7", 1: "coherent 1 pause@3", 2: "coherent 0 pause@11"},
    }
    jobs = {}
    for name, folder in folders.items():
        folder.mkdir()
        write_config(folder / "tiny.yaml", tiny)
        jobs[name] = cluster.submit(
            folder,
            *ON_BOTH,
            JOBS / "train_preemptible.sbatch",
            *("tiny.yaml", *QUIET),
            HPCDD_VENV=hpcdd(folder, faults[name]),
            HPCDD_REQUEUES="3",
        )

    def at_fault(name: str, restarts: int) -> str:
        fault = folders[name] / "fault"
        cluster.wait(fault.exists)
        fault.unlink()
        assert cluster.about(jobs[name])["Restarts"] == str(restarts)
        return jobs[name]

    cluster.call("scancel", "--signal=USR1", at_fault("one", 0))
    cluster.call("scontrol", "requeue", at_fault("other", 0))
    cluster.call("scontrol", "requeue", at_fault("one", 1))
    cluster.call("scancel", "--signal=USR1", at_fault("other", 1))
    assert cluster.exit_code(jobs["one"]) == 0
    at_fault("other", 2)
    urgent = cluster.submit(tmp_path, "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=true")
    assert cluster.exit_code(urgent) == 0
    assert cluster.exit_code(jobs["other"]) == 0

    one, other = ((folders[name] / f"hpcdd-{jobs[name]}.out").read_text() for name in folders)
    asked, requeued = "hpcdd: asked to stop by", "hpcdd: out of time, or asked to stop; requeued (requeues left: 2)"
    assert f"{asked} SIGUSR1 in phase local" in one
    assert f"{asked} SIGUSR1 in phase coherent_transfer" in other
    assert f"{asked} SIGTERM in phase coherent_transfer" in other
    assert one.count(requeued) == other.count(requeued) == 1
    assert "hpcdd: preempted; requeued (requeues left: 2, as before)" in other
    for name, folder in folders.items():
        assert not list(folder.glob("*.requeues"))
        check_same(folder / f"runs/hpcdd-{jobs[name]}", undisturbed / "run")


def test_ranks_that_can_not_meet_are_refused_with_the_fix(cluster: Cluster, tiny: Path, tmp_path: Path) -> None:
    write_config(tmp_path / "tiny.yaml", tiny)
    job = cluster.submit(
        tmp_path, *ON_BOTH, JOBS / "train.sbatch", "tiny.yaml", HPCDD_VENV=hpcdd(tmp_path), SLURM_MPI_TYPE="none"
    )
    assert cluster.exit_code(job) == 2
    log = (tmp_path / f"hpcdd-{job}.out").read_text()
    assert "srun started 2 processes, but they can't meet" in log
    assert "srun --mpi=pmi2` for MPICH" in log
    assert not (tmp_path / "runs").exists()
