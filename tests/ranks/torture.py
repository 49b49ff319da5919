"""Jobs that are killed at random moments, over and over, until the run is complete all the same.

``python -m tests.ranks.torture --kills 200 --folder FOLDER [--seed 0] [--mpi mpich]`` trains a small model once
undisturbed, and then again and again with faults that are really caused, each job on another number of ranks, until
so many jobs have been killed. Every run must end with the parameters, bit by bit, and with the accuracies and curves
of the undisturbed one. Faults:

* SIGKILL to one rank, to all ranks, to mpirun (and what it leaves behind);
* SIGSTOP to one rank: the watchdog must name it and end the job;
* SIGTERM or SIGUSR1 to mpirun, to one rank, to all;
* a full disk (with --small FOLDER, a small file system such as a tmpfs of 2 MiB, that is filled up for a while);
* between two jobs a flipped bit, a cut or a loss in one file of the checkpoints.

A fraction of the jobs (``--forked``) have one rank and are forked from this process, which has imported everything: to
start a job under mpirun takes longer than to torture it. A line is printed for each job, and at the end how often each
fault came. Any difference ends it with an AssertionError.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import yaml

import hpcdd.runs.pipeline  # noqa: F401 - forked jobs need not import it
from hpcdd.cli import main as cli
from hpcdd.data.writing import write_dataset

from ..conftest import make_split
from ..launchers import AS_ROOT, Launcher, find, without_report
from .test_resume import check_same

FORKED_FAULTS = ("kill one", "kill one", "kill one", "SIGTERM", "SIGUSR1", "fill the disk")
FAULTS = ("kill one", "kill one", "kill all", "kill mpirun", "stop one", "SIGTERM", "SIGUSR1", "fill the disk")
LONGEST = 45.0


class Torture:
    """Runs under torture.

    Args:
        mpi: the launcher.
        folder: for everything.
        small: a small file system for the runs; None for ``folder``.
        seed: of the moments.
        forked: fraction of the jobs that are forked.
    """

    def __init__(self, mpi: Launcher, folder: Path, small: Path | None, seed: int, forked: float) -> None:
        self.forked = forked
        self.mpi, self.folder, self.runs = mpi, folder, small or folder
        self.small = small
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.seconds = 6.0  # of an undisturbed job
        self.forked_seconds = 4.0  # of a forked one

    def prepare(self) -> None:
        """The data set, the configuration, and the undisturbed run."""
        shutil.rmtree(self.folder / "undisturbed", ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        splits = {"train": make_split(600), "test": make_split(90, seed=1)}
        write_dataset(self.folder / "tiny.h5", splits, name="tiny", class_names=["two", "three", "four"])
        content = {
            "data": {"file": str(self.folder / "tiny.h5"), "validation_fraction": 0.1},
            "decomposition": {"grid": [2, 2]},
            "model": {"name": "vgg1", "width": 8},
            "local": {"epochs": 15, "batch_size": 16},
            "aggregation": {"epochs": 12, "batch_size": 16, "dropout": 0.2},
            "coherent": {"epochs": 8, "batch_size": 16, "starts": ["transfer", "scratch"]},
            "checkpoint": {"every": "0.01 minutes"},
            "run": {"stall_timeout": 10},
            "progress": "off",
        }
        (self.folder / "config.yaml").write_text(yaml.safe_dump(content))
        start = time.monotonic()
        done = self.mpi.hpcdd(4, ["train", self.folder / "config.yaml", "--output", "undisturbed"], self.folder)
        assert done.returncode == 0, done.stderr
        self.seconds = time.monotonic() - start

    def run_until(self, kills: int) -> None:
        """Begins run after run until that number of jobs has been killed."""
        number = 0
        while self.counts["kills"] < kills:
            number += 1
            run = self.runs / "run"
            shutil.rmtree(run, ignore_errors=True)
            jobs = 0
            while True:
                disturbed = self.counts["kills"] < kills and jobs < 12
                forked = disturbed and self.random.random() < self.forked
                if (self.forked_job if forked else self.job)(run, number, disturbed=disturbed):
                    break
                jobs += 1
                if self.random.random() < 0.3:
                    self.damage(run)
            check_same(run, self.folder / "undisturbed")
            self.counts["complete runs"] += 1
        print(dict(self.counts), flush=True)

    def forked_job(self, run: Path, number: int, *, disturbed: bool) -> bool:
        """One job of one rank, forked from this process; whether the run is complete."""
        assert disturbed
        fault = self.random.choice(FORKED_FAULTS if self.small is not None else FORKED_FAULTS[:-1])
        arguments = ["train", str(self.folder / "config.yaml"), "--output", str(run)]
        if (run / "checkpoints" / "run.json").exists():
            arguments.append("--resume")
        child = os.fork()
        if child == 0:
            output = os.open(self.folder / "forked.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = 1
            with contextlib.suppress(SystemExit):
                code = cli.main(without_report(arguments))
            sys.stdout.flush()
            os._exit(code)
        start = time.monotonic()
        end = start + self.random.uniform(0.1, self.forked_seconds)
        process, status = 0, 0
        while not process and time.monotonic() < end:
            process, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.02)
        ended = bool(process)
        if ended:
            self.forked_seconds = time.monotonic() - start
        else:
            if fault == "fill the disk":
                self.fill()
            else:
                os.kill(child, signal.SIGKILL if fault == "kill one" else signal.Signals[fault])
            _, status = os.waitpid(child, 0)
        self.free()
        code = os.waitstatus_to_exitcode(status)
        fault = "none" if ended else fault
        print(f"run {number}, 1 rank (forked), {fault}: exit code {code}", flush=True)
        out = (self.folder / "forked.log").read_text()
        assert ended is False or code == 0, out
        assert fault == "kill one" or "Traceback" not in out, out
        # Negative: before the handlers are there.
        assert not fault.startswith("SIG") or code in (0, 75, -signal.Signals[fault]), (code, out)
        self.counts[fault] += fault != "none"
        self.counts["kills"] += code != 0
        return code == 0

    def fill(self) -> None:
        """Fills the disk up, for a while."""
        assert self.small is not None
        with contextlib.suppress(OSError), (self.small / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        time.sleep(self.random.uniform(0.1, 2))
        if self.random.random() < 0.5:
            self.free()

    def job(self, run: Path, number: int, *, disturbed: bool) -> bool:
        """One job; whether the run is complete."""
        ranks = self.random.randint(1, 5)
        arguments = ["-m", "hpcdd", "train", self.folder / "config.yaml", "--output", run]
        if (run / "checkpoints" / "run.json").exists():  # a run that was killed behind its end is complete
            arguments.append("--resume")
        process = self.mpi.start(ranks, arguments, self.folder)
        fault = self.random.choice(FAULTS) if disturbed else "none"
        if fault == "fill the disk" and self.small is None:
            fault = "kill all"
        ended = False
        if disturbed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.random.uniform(0.25, 1.1) * self.seconds)
                ended = True
            if not ended:
                self.cause(fault, process)
        try:
            out, err = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            # Stopped behind its last message, a process hangs where nobody waits for it any more.
            if fault != "stop one" or not json.loads((run / "checkpoints/run.json").read_text())["content"]["complete"]:
                raise AssertionError(f"{fault} on {ranks} ranks: the job does not end\n{out}\n{err}") from None
        self.free()
        orphans = self.wait_for_orphans(run)
        fault = "none" if ended else fault
        print(f"run {number}, {ranks} ranks, {fault}: exit code {process.returncode}{orphans}", flush=True)
        complete = process.returncode == 0
        if not complete and fault == "none":
            raise AssertionError(f"undisturbed, but: {out}\n{err}")
        if not complete or fault != "none":
            self.counts[fault] += fault != "none"
            self.counts["kills"] += not complete
        if fault.startswith("SIG") and not complete:
            early = "interrupted before" in err or not (run / "checkpoints").exists()
            expected = {75} if self.mpi.kind == "mpich" else {75, 1}  # 1: Open MPI's mpirun, if it got SIGTERM itself
            assert early or process.returncode in expected, (process.returncode, err)
        if fault == "stop one" and not complete and process.returncode != -signal.SIGKILL:
            assert "does not respond" in err or "another rank hangs while it ends" in err, err
        assert fault.startswith("kill") or "Traceback" not in err, err
        return complete

    def cause(self, fault: str, process: subprocess.Popen[str]) -> None:
        """Causes a fault now."""
        ranks = self.ranks_of(process.pid)
        if not ranks:
            return
        one = self.random.choice(ranks)
        if fault == "kill one":
            one.kill()
        elif fault == "kill all":
            for rank in ranks:
                with contextlib.suppress(psutil.NoSuchProcess):
                    rank.kill()
        elif fault == "kill mpirun":
            process.kill()
        elif fault == "stop one":
            if len(list((self.runs / "run" / "heartbeats").glob("rank-*"))) == len(ranks):  # the watchdogs are up
                one.suspend()
            else:
                process.kill()
        elif fault == "fill the disk":
            self.fill()
        else:
            signum = signal.Signals[fault]
            target = self.random.choice(("mpirun", "one", "all"))
            with contextlib.suppress(psutil.NoSuchProcess):
                for it in {"mpirun": [psutil.Process(process.pid)], "one": [one], "all": ranks}[target]:
                    it.send_signal(signum)

    def free(self) -> None:
        """Gives the disk free."""
        if self.small is not None:
            (self.small / "filler").unlink(missing_ok=True)

    def damage(self, run: Path) -> None:
        """Flips a bit of, cuts or removes the newest file of some training's checkpoints; an older one is there."""
        folders = [folder for folder in (run / "checkpoints").rglob("*") if len(list(folder.glob("e*.json"))) > 1]
        if not folders:
            return
        folder = self.random.choice(folders)
        newest = max(path.name.split(".")[0] for path in folder.glob("e*.json"))
        path = self.random.choice(sorted(folder.glob(f"{newest}.*")))
        content = bytearray(path.read_bytes())
        kind = self.random.choice(("flip", "cut", "gone"))
        if kind == "gone":
            path.unlink()
        elif kind == "cut":
            path.write_bytes(content[: self.random.randrange(len(content))])
        else:
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
            path.write_bytes(content)
        self.counts[f"damage: {kind}"] += 1
        print(f"  {kind}: {path.relative_to(run)}", flush=True)

    def wait_for_orphans(self, run: Path) -> str:
        """Ranks that outlive a killed mpirun: the lock keeps the next job out, a batch system takes them away."""
        orphans = [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(run) in (process.info["cmdline"] or []) and process.pid != os.getpid()
        ]
        _, alive = psutil.wait_procs(orphans, timeout=15)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive)
        return f", {len(alive)} orphans after 15 s" if alive else ""

    def ranks_of(self, pid: int) -> list[psutil.Process]:
        """The python processes below mpirun."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [
                child
                for child in psutil.Process(pid).children(recursive=True)
                if "-m" in child.cmdline() and "hpcdd" in child.cmdline() and "python" in child.name()
            ]
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="jobs to kill")
    parser.add_argument("--folder", type=Path, required=True, help="for data, configuration and runs")
    parser.add_argument("--small", type=Path, help="a small file system for the runs, for full disks")
    parser.add_argument("--forked", type=float, default=0.7, help="share of the jobs that are forked, see above")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--mpi", choices=list(find()), default=next(iter(find())), help="under whose mpirun")
    options = parser.parse_args()
    os.environ.update(AS_ROOT, OMP_NUM_THREADS="1")
    torture = Torture(find()[options.mpi], options.folder.absolute(), options.small, options.seed, options.forked)
    torture.prepare()
    torture.run_until(options.kills)
    print(json.dumps({"python": sys.version.split()[0], "numpy": np.__version__, "mpi": options.mpi}))


if __name__ == "__main__":
    main()
