"""Runs that can't be resumed, or not so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpcdd.data.format import inspect
from hpcdd.runs import lock, resume
from hpcdd.runs.run_directory import RunDirectory

from ..parsed import parse
from .row import Row, folder
from .runs import full, training

RESUME = ("train", "--resume")


def run(name: str = "run", *, complete: bool = False, begun: str | None = None, **changes: Any) -> Callable[[], None]:
    """Makes a run directory as an earlier job has left it: its record, and a folder of the phase that has begun."""

    def make() -> None:
        config, _ = parse(training()[1:])
        facts = {"dataset": inspect(Path("good.h5")).fingerprint, "blocks": 16, "device": "cpu"}
        directory = RunDirectory(Path(name))
        for path in (directory.logs, directory.heartbeats):
            path.mkdir(parents=True)
        directory.write_record({**resume.record_of(config, "1234", **facts), "complete": complete, **changes})
        if begun is not None:
            directory.training(begun).mkdir()

    return make


def damaged() -> None:
    run()()
    for path in Path("run/checkpoints").glob("run*.json"):
        path.write_bytes(path.read_bytes()[:-9])


def held() -> None:
    """By process 1, which surely lives."""
    run()()
    holder = lock.Lock(Path("run/lock"))
    holder.acquire()
    content = json.loads(Path("run/lock").read_text())
    holder.release()
    content |= {"pid": 1, "started": lock._started(1), "job": "77"}
    Path("run/lock").write_text(json.dumps(content))


def other_data() -> None:
    run()()
    shutil.copy("good.h5", "before.h5")
    import h5py

    with h5py.File("good.h5", "r+") as file:
        file["train/labels"][:3] = [2, 0, 1]


def complete_with_another_file() -> None:
    run(complete=True)()
    shutil.copy("good.h5", "other.h5")
    import h5py

    with h5py.File("other.h5", "r+") as file:
        file["train/labels"][:3] = [2, 0, 1]


def going_on(*options: str) -> tuple[str, ...]:
    return ("train", "--resume", "--output", "run", *options)


RESUMES = [
    Row(
        "resume without a run",
        RESUME,
        "--resume: there is no run runs/quickstart-K here; name the run's folder with --output",
    ),
    Row(
        "resume misspelt",
        ("train", "--resme"),
        "command line: --resme is unknown; did you mean --resume?",
    ),
    Row("resume in no folder", going_on(), "--resume: run holds no run"),
    Row("resume in an empty folder", going_on(), "--resume: run holds no run", folder("run")),
    Row(
        "resume in a folder of other things",
        ("train", "--resume", "--output", "full"),
        "output is full, a folder that is not empty and holds no run; it is not overwritten, so name another folder",
        full,
    ),
    Row(
        "output holds a complete run of other settings",
        training("--output", "run", "--seed", "5"),
        "seed was 0 in run and is 5 now; resume a run with the settings it was started with, or name another --output",
        run(complete=True),
    ),
    Row(
        "output holds a complete run of fewer epochs",
        training("--output", "run", "--local.epochs", "9", "--coherent.epochs", "9"),
        "output is run, which holds a complete run of fewer local.epochs, coherent.epochs; resume it with --resume, or "
        "name another folder",
        run(complete=True),
    ),
    Row(
        "resume with other settings",
        going_on("--seed", "5", "--local.batch_size", "64", "--run.stall_timeout", "9"),
        "local.batch_size was 128 in run and is 64 now; resume a run with the settings it was started with, "
        "or name another --output"
        "\n"
        "seed was 0 in run and is 5 now; resume a run with the settings it was started with, or name another --output",
        run(),
        mpirun=True,
    ),
    Row(
        "resume with fewer epochs",
        going_on("--local.epochs", "1"),
        "local.epochs was 2 in run and is 1 now; it can only be increased",
        run(),
    ),
    Row(
        "resume with more local epochs behind the aggregation",
        going_on("--local.epochs", "9"),
        "local.epochs was 2 in run and is 9 now; it can only be increased until phase dnn has started, which "
        "builds on its result",
        run(begun="dnn"),
    ),
    Row(
        "resume with more epochs of the DNN behind the coherent phase",
        going_on("--aggregation.epochs", "99"),
        "aggregation.epochs was 10 in run and is 99 now; it can only be increased until phase "
        "coherent_transfer has started, which builds on its result",
        run(begun="coherent_transfer"),
    ),
    Row(
        "resume of a run with a damaged record",
        going_on(),
        "the run can't be resumed: run/checkpoints/run.json is damaged (Expecting value: line 1 column "
        "COLUMN (char CHAR)); run/checkpoints/run-copy.json is damaged (Expecting value: line 1 column COLUMN "
        "(char CHAR))",
        damaged,
    ),
    Row(
        "resume of a run of another format",
        going_on(),
        "run is a run of format 2 (hpcdd 9.9); this hpcdd resumes format 1",
        run(format=2, hpcdd="9.9"),
    ),
    Row(
        "resume while another job is at work",
        going_on(),
        "run is in use by a job on host HOST (process 1, Slurm job 77); wait for it to end, or name another --output",
        held,
    ),
    Row(
        "resume on another data set",
        going_on(),
        "data.file: good.h5 is not the data set with which run was started (fingerprint FINGERPRINT, not FINGERPRINT)",
        other_data,
    ),
    Row(
        "output holds a complete run of another data set",
        ("train", "--data.file", "other.h5", "--model.name", "vgg1", "--output", "run"),
        "data.file: other.h5 is not the data set with which run was started (fingerprint FINGERPRINT, not FINGERPRINT)",
        complete_with_another_file,
    ),
    Row(
        "resume on another device",
        going_on(),
        "run was started on cuda, but this job would resume it on cpu; use --device cuda",
        run(device="cuda"),
    ),
    Row(
        "resume of a benchmark",
        ("bench", "coherent", "--resume"),
        "command line: --resume belongs to `hpcdd train`",
    ),
    Row(
        "profile of a benchmark",
        ("bench", "coherent", "--profile"),
        "command line: --profile belongs to `hpcdd train`",
    ),
    Row(
        "checkpoints at odd times",
        training("--checkpoint.every", "often"),
        "command line: checkpoint.every is 'often'; write `1 epoch`, `5 epochs`, `10 minutes` or `0.5 minutes`",
    ),
    Row(
        "checkpoints every half epoch",
        training("--checkpoint.every", "0.5 epochs"),
        "command line: checkpoint.every is '0.5 epochs'; write `1 epoch`, `5 epochs`, `10 minutes` or `0.5 minutes`",
    ),
    Row(
        "no time to stall",
        training("--run.stall_timeout", "0"),
        "command line: run.stall_timeout is 0: input should be greater than 0",
    ),
    Row(
        "survival where it is not offered",
        training("--run.survive", "true"),
        "run.survive is true, but this job can't survive the loss of a rank; start it with Open MPI 5 as `mpirun "
        "--with-ft ulfm -n N ...`, or set run.survive false",
    ),
]
