"""What the scripts in jobs/ give to srun, hpcdd and Slurm, on a real Slurm; a stub replaces hpcdd."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from ..programs import JOBS, stand_in
from ..waiting import LIMIT
from .cluster import Cluster

SHOW = 'printf "%s|" "$SLURMD_NODENAME" "$OMP_NUM_THREADS" "${CUDA_VISIBLE_DEVICES-}" "$@" | sed "s/$/\\n/"'


def lines_of(folder: Path, pattern: str) -> list[list[str]]:
    (log,) = folder.glob(pattern)
    return sorted(line.rstrip("|").split("|") for line in log.read_text().splitlines() if "|" in line)


@pytest.mark.parametrize(("script", "command", "name"), [("train", "train", "hpcdd"), ("runs", "study", "runs")])
def test_options_go_to_sbatch_and_arguments_to_hpcdd(
    cluster: Cluster, tmp_path: Path, script: str, command: str, name: str
) -> None:
    options = ("--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=2")
    arguments = ("configs/x.yaml", "--local.epochs", "5", "--coherent.starts", "[]", "--name", "a  b")
    job = cluster.submit(tmp_path, *options, JOBS / f"{script}.sbatch", *arguments, HPCDD_VENV=stand_in(tmp_path, SHOW))
    assert cluster.exit_code(job) == 0
    printed = lines_of(tmp_path, f"{name}-{job}.out")
    assert printed == [[node, "2", "", command, *arguments] for node in ("n1", "n1", "n2", "n2")]


def test_tasks_get_what_the_script_sets_without_the_environment_of_sbatch(cluster: Cluster, tmp_path: Path) -> None:
    head, line, rest = (JOBS / "train.sbatch").read_text().partition("\nexport PATH=")
    script = tmp_path / "train.sbatch"
    script.write_text(f"{head}\nHPCDD_VENV={stand_in(tmp_path, SHOW)}{line}{rest}")
    options = ("--export=NONE", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2")
    job = cluster.submit(tmp_path, *options, script, "x.yaml")
    assert cluster.exit_code(job) == 0, next(tmp_path.glob("*.out")).read_text()
    assert lines_of(tmp_path, f"hpcdd-{job}.out") == [[node, "2", "", "train", "x.yaml"] for node in ("n1", "n2")]


def test_each_task_of_an_array_knows_its_end(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a.yaml\nb.yaml\nc.yaml\n")
    venv = stand_in(tmp_path, 'echo "$SLURM_JOB_END_TIME" >"end-$SLURM_ARRAY_TASK_ID"')
    options = ("--array=1-3", "--ntasks-per-node=1", "--output=%a.out")
    job = cluster.submit(tmp_path, *options, JOBS / "study.sbatch", "lines.txt", HPCDD_VENV=venv)
    assert [cluster.exit_code(f"{job}_{task}") for task in (1, 2, 3)] == [0, 0, 0]
    assert [(tmp_path / f"end-{task}").read_text().strip().isdecimal() for task in (1, 2, 3)] == [True] * 3
    assert not [log for log in tmp_path.glob("?.out") if "date" in log.read_text()]


def test_each_rank_has_a_gpu_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    venv = stand_in(tmp_path, SHOW)
    options = ("--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=1")
    job = cluster.submit(tmp_path, *options, JOBS / "train_gpu.sbatch", "x.yaml", HPCDD_VENV=venv)
    other = cluster.submit(tmp_path, *options, JOBS / "train_gpu.sbatch", "x.yaml", "--device=auto", HPCDD_VENV=venv)
    assert cluster.exit_code(job) == cluster.exit_code(other) == 0
    places = [("n1", "0"), ("n1", "1"), ("n2", "0"), ("n2", "1")]
    assert lines_of(tmp_path, f"hpcdd-{job}.out") == [
        [node, "1", gpu, "train", "x.yaml", "--device", "cuda"] for node, gpu in places
    ]
    assert lines_of(tmp_path, f"hpcdd-{other}.out") == [
        [node, "1", gpu, "train", "x.yaml", "--device=auto"] for node, gpu in places
    ]


def test_requeues_are_counted_down_and_only_for_code_75(cluster: Cluster, tmp_path: Path) -> None:
    folders = {code: tmp_path / str(code) for code in (0, 1, 2, 3, 75)}
    jobs = {}
    for code, folder in folders.items():
        folder.mkdir()
        venv = stand_in(folder, f"{SHOW}; exit {code}")
        arguments = ("--ntasks-per-node=1", JOBS / "train_preemptible.sbatch", "x.yaml")
        jobs[code] = cluster.submit(folder, *arguments, HPCDD_VENV=venv, HPCDD_REQUEUES="1")
    assert {code: cluster.exit_code(job) for code, job in jobs.items()} == {code: code for code in jobs}
    restarts = {code: int(cluster.about(job)["Restarts"]) for code, job in jobs.items()}
    assert restarts == {0: 0, 1: 0, 2: 0, 3: 0, 75: 1}
    log = (folders[75] / f"hpcdd-{jobs[75]}.out").read_text()
    assert "requeued (requeues left: 0)" in log
    assert "not requeued, no requeue is left of HPCDD_REQUEUES=1" in log
    # The second part appends to the log of the first, and has the same folder.
    parts = lines_of(folders[75], f"hpcdd-{jobs[75]}.out")
    assert [part[3:] for part in parts] == [["train", "x.yaml", "--output", f"runs/hpcdd-{jobs[75]}"]] * 2
    assert not list(tmp_path.glob("*/*.requeues"))


def test_an_array_without_a_number_or_a_line_says_so(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("# comment\n\nx.yaml --name 'a  b' --output out\n")
    script, venv = JOBS / "study.sbatch", stand_in(tmp_path, SHOW)
    options = ("--ntasks-per-node=1", "--output=%a.out")
    job = cluster.submit(tmp_path, "--array=1-2", *options, script, "lines.txt", "--seed", "1", HPCDD_VENV=venv)
    no_array = cluster.submit(tmp_path, *options[:1], "--output=no_array.out", script, "lines.txt", HPCDD_VENV=venv)
    none = cluster.submit(tmp_path, "--array=7", *options, script, "nothing.txt", HPCDD_VENV=venv)
    assert [cluster.exit_code(number) for number in (f"{job}_1", f"{job}_2", f"{none}_7")] == [0, 2, 2]
    assert cluster.exit_code(no_array) != 0
    assert lines_of(tmp_path, "1.out") == [
        ["n1", "1", "", "train", "x.yaml", "--name", "a  b", "--output", "out", "--seed", "1"]
    ]
    assert "lines.txt has 1 lines, none for task 2" in (tmp_path / "2.out").read_text()
    assert "submit with --array=1-N" in (tmp_path / "no_array.out").read_text()
    assert "no line in 'nothing.txt'" in (tmp_path / "7.out").read_text()


def test_scaling_submits_a_chain_that_continues_after_a_failure(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "strong.yaml").touch()
    environment = {**cluster.environment, "HPCDD_VENV": stand_in(tmp_path, f"{SHOW}; [[ $SLURM_NNODES != 2 ]]")}
    command = [JOBS / "scaling.sh", "strong.yaml", "2", "1", "--ntasks-per-node=2", "--hold"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    *numbers, report = [line.removeprefix("job ").partition(": ") for line in done.stdout.splitlines()]
    assert [what for _, _, what in numbers] == ["nodes 2", "nodes 1"]
    assert report[2] == "report of strong.jsonl"
    jobs = [job for job, _, _ in (*numbers, report)]
    descriptions = [cluster.about(job) for job in jobs]
    assert [about["NumNodes"].partition("-")[0] for about in descriptions] == ["2", "1", "1"]
    waits = [about["Dependency"].partition("(unfulfilled)")[0] for about in descriptions]
    assert waits == ["(null)", f"afterany:{jobs[0]}", f"afterany:{jobs[1]}"]
    cluster.call("scontrol", "release", *jobs)
    assert [cluster.exit_code(job) for job in jobs] == [1, 0, 0]
    scale = ["scale", "strong.yaml", "--output", "strong.jsonl"]
    assert [line[3:] for line in lines_of(tmp_path, f"scaling-{jobs[1]}.out")] == [scale] * 2
    assert [line[3:] for line in lines_of(tmp_path, f"scaling-{jobs[2]}.out")] == [["report", "strong.jsonl"]]
    ends = [cluster.about(job) for job in jobs]
    assert all(after["StartTime"] >= before["EndTime"] for before, after in itertools.pairwise(ends))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [([], "name a study"), (["gone.yaml", "1"], "no file 'gone.yaml'"), (["lines.yaml", "x"], "name numbers of nodes")],
)
def test_scaling_says_what_it_lacks(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "lines.yaml").touch()
    done = subprocess.run(
        [JOBS / "scaling.sh", *arguments],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 2
    assert complaint in done.stderr
