"""Real trainings over two nodes, by the scripts in jobs/."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from hpcdd.artifacts import scaling_log

from ..launchers import find, started
from ..programs import JOBS, hpcdd, stand_in
from ..ranks.test_resume import check_same, write_config
from .cluster import Cluster

ON_BOTH = ("--nodes=2", "--ntasks-per-node=1")
QUIET = ("--progress", "off", "--run.report", "false")


@pytest.fixture(scope="module")
def short_of_time(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A job of two minutes, started before the others, so that no test has to wait for it.

    Slurm looks for jobs to signal every 30 s, and signals those whose time comes before it looks again: this one 50 to
    80 s before its end. A signal before the step has begun would be lost.
    """
    folder = tmp_path_factory.mktemp("short")
    script = """
        [[ ! -e stopped ]] || exit 0
        (trap '' USR1; exec sleep 600) & waited=$!  # Slurm signals it as well; its end would end the script
        trap 'echo "$((SLURM_JOB_END_TIME - $(date +%s))) s are left"; touch stopped; kill $waited; exit 75' USR1
        wait
    """
    # The highest partition, since another test preempts whatever runs in the lower one.
    options = ("--partition=urgent", "--ntasks-per-node=1", "--time=2", "--signal=USR1@50")
    script_file = JOBS / "train_preemptible.sbatch"
    return folder, cluster.submit(folder, *options, script_file, HPCDD_VENV=stand_in(folder, script))


@pytest.fixture(scope="module")
def undisturbed(
    cluster: Cluster, tiny: Path, short_of_time: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_config(folder / "tiny.yaml", tiny)
    arguments = ("tiny.yaml", *QUIET, "--output", "run")
    job = cluster.submit(folder, *ON_BOTH, JOBS / "train.sbatch", *arguments, HPCDD_VENV=hpcdd(folder))
    assert cluster.exit_code(job) == 0, (folder / f"hpcdd-{job}.out").read_text()
    return folder


def test_a_training_over_two_nodes(undisturbed: Path) -> None:
    assert sorted((undisturbed / "nodes").read_text().split()) == ["n1", "n2"]
    assert "rank 1 of 2" in (undisturbed / "run/logs/rank-0001.log").read_text()


def test_jobs_that_are_stopped_requeued_and_preempted_end_like_an_undisturbed_one(
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
    # Slurm forgets a preemption at the requeue, so the part that follows does not count as preempted.
    assert cluster.about(jobs["other"]).get("PreemptTime", "None") == "None"

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


def test_ranks_connect_with_any_content_of_unused_memory(cluster: Cluster, tmp_path: Path) -> None:
    """MALLOC_PERTURB_ fills memory that is not in use, which MPICH's UCX sends along with its address."""
    program = tmp_path / "meet.py"
    program.write_text("from hpcdd.mpi.communicator import world\n\nprint(world().size)\n")
    output = cluster.call("srun", *ON_BOTH, "--time=1", sys.executable, program, MALLOC_PERTURB_="85")
    assert output.split() == ["2", "2"]


def test_ranks_that_can_not_connect_are_refused_with_the_fix(cluster: Cluster, tiny: Path, tmp_path: Path) -> None:
    write_config(tmp_path / "tiny.yaml", tiny)
    job = cluster.submit(
        tmp_path, *ON_BOTH, JOBS / "train.sbatch", "tiny.yaml", HPCDD_VENV=hpcdd(tmp_path), SLURM_MPI_TYPE="none"
    )
    assert cluster.exit_code(job) == 2
    log = (tmp_path / f"hpcdd-{job}.out").read_text()
    assert "srun started 2 processes, but they can't connect" in log
    assert "srun --mpi=pmi2` for MPICH" in log
    assert not (tmp_path / "runs").exists()


def test_a_training_over_two_nodes_by_open_mpi_and_pmix(
    cluster: Cluster, undisturbed: Path, tiny: Path, tmp_path: Path
) -> None:
    if "openmpi" not in find():
        pytest.skip("there is no mpirun of Open MPI")
    try:
        cluster.call("srun", "--mpi=pmix", "true")
    except AssertionError as error:
        pytest.skip(f"Slurm offers no PMIx here (`apt-get install libpmix-dev`): {error}")
    write_config(tmp_path / "tiny.yaml", tiny)
    job = cluster.submit(
        tmp_path,
        *ON_BOTH,
        JOBS / "train.sbatch",
        *("tiny.yaml", *QUIET, "--output", "run"),
        HPCDD_VENV=hpcdd(tmp_path),
        SLURM_MPI_TYPE="pmix",
        **find()["openmpi"].environment,
    )
    started["pmix"] += 1
    assert cluster.exit_code(job) == 0, (tmp_path / f"hpcdd-{job}.out").read_text()
    assert sorted((tmp_path / "nodes").read_text().split()) == ["n1", "n2"]
    check_same(tmp_path / "run", undisturbed / "run")


def test_an_array_trains_once_per_line(cluster: Cluster, tiny: Path, tmp_path: Path) -> None:
    write_config(tmp_path / "tiny.yaml", tiny)
    (tmp_path / "lines.txt").write_text(
        "# two ways to cut\ntiny.yaml --decomposition.grid 2,1\ntiny.yaml --decomposition.grid 1,2\n"
    )
    options = ("--array=1-2", "--nodes=1", "--ntasks-per-node=1")
    arguments = ("lines.txt", *QUIET, "--local.epochs", "1", "--coherent.starts", "[]")
    job = cluster.submit(tmp_path, *options, JOBS / "study.sbatch", *arguments, HPCDD_VENV=hpcdd(tmp_path))
    for task, grid in ((1, [2, 1]), (2, [1, 2])):
        log = tmp_path / f"study-{job}_{task}.out"
        assert cluster.exit_code(f"{job}_{task}") == 0, log.read_text()
        results = json.loads((tmp_path / f"runs/study-{job}/{task}/results.json").read_text())
        assert results["decomposition"]["grid"] == grid


def test_a_chain_of_jobs_measures_the_points_and_makes_the_report(cluster: Cluster, tiny: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(write_config(tmp_path / "tiny.yaml", tiny).read_text())
    study = {"kind": "strong", "repeats": 1, "warm_up": 1, "steps": 2, "config": config}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    command = [JOBS / "scaling.sh", "study.yaml", "1", "2", "--ntasks-per-node=1"]
    output = cluster.call(*command, cwd=tmp_path, HPCDD_VENV=hpcdd(tmp_path))
    jobs = re.findall(r"job (\d+):", output)
    started["slurm"] += len(jobs)
    for job in jobs:
        assert cluster.exit_code(job) == 0, (tmp_path / f"scaling-{job}.out").read_text()
    lines = scaling_log.read(tmp_path / "study.jsonl")
    assert [line.ranks for line in lines] == [1, 1, 1, 1, 2, 2, 2, 2]
    assert "report: study-report/report.html" in (tmp_path / f"scaling-{jobs[-1]}.out").read_text()


def test_a_job_whose_time_is_over_goes_back_into_the_queue(cluster: Cluster, short_of_time: tuple[Path, str]) -> None:
    folder, job = short_of_time
    assert cluster.exit_code(job) == 0, cluster.state()
    log = (folder / f"hpcdd-{job}.out").read_text()
    left = re.search(r"(\d+) s are left", log)
    assert left is not None, cluster.state()
    assert 0 < int(left[1]) <= 90
    assert "hpcdd: out of time, or asked to stop; requeued (requeues left: 19)" in log
    assert cluster.about(job)["Restarts"] == "1"
