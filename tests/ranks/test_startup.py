"""What a job does before its first step: root alone reads the configuration, nobody imports what it does not need."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
import yaml

from hpcdd.runs.profiling import STEPS
from hpcdd.training.step_timing import PARTS

from ..launchers import Launcher
from ..waiting import LIMIT

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "startup.py"
CAUSES = ["interpreter", "mpi", "configuration", "imports", "problem", "directory", "read", "first_step"]


def test_a_start(mpi: Launcher, tiny: Path, tmp_path: Path) -> None:
    """The configuration is a pipe, from which its content can be read once: a second reader would wait for ever."""
    pipe = tmp_path / "c.yaml"
    os.mkfifo(pipe)
    content = {
        "data": {"file": str(tiny)},
        "decomposition": {"grid": [1, 2]},
        "model": {"name": "vgg2", "width": 4},
        "local": {"epochs": 1},
        "aggregation": {"epochs": 1},
        "coherent": {"epochs": 1},
        "progress": "off",
    }
    writer = threading.Thread(target=pipe.write_text, args=(yaml.safe_dump(content),), daemon=True)
    writer.start()
    done = mpi.run(2, [PROGRAM, "train", pipe, "--output", "run"], tmp_path)
    writer.join(timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    imported = {line for line in done.stdout.splitlines() if line.endswith(" torch")}
    assert imported == {"rank 0: rich torch", "rank 1: torch"}
    startup = json.loads((tmp_path / "run/results.json").read_text())["startup"]
    assert list(startup) == CAUSES
    assert all(0 <= seconds < LIMIT for seconds in startup.values())


def test_profile_leaves_traces_of_every_training_phase_and_rank(mpi: Launcher, tiny: Path, tmp_path: Path) -> None:
    options = ["--data.file", tiny, "--decomposition.grid", "1,2", "--model.local_width", "2"]
    options += ["--local.batch_size", "50", "--local.epochs", "3"]
    options += ["--aggregation.epochs", "1", "--coherent.epochs", "1"]
    done = mpi.hpcdd(2, ["train", *options, "--output", "run", "--profile"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    traces = sorted(path.name for path in (tmp_path / "run/profile").iterdir())
    # The DNN (two batches) and the coherent model (as many) have fewer steps than are let pass.
    assert traces == ["local-rank-0000.json", "local-rank-0001.json"]
    for name in traces:
        events = json.loads((tmp_path / "run/profile" / name).read_text())["traceEvents"]
        marked = [event["name"] for event in events if event.get("cat") == "user_annotation"]
        assert [marked.count(part) for part in PARTS] == [STEPS] * len(PARTS)
