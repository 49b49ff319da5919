"""What a job does before its first step: root alone reads the configuration, nobody imports what it does not need."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import yaml

from ..launchers import Launcher

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
    done = mpi.run(2, [PROGRAM, "train", pipe, "--output", "run"], tmp_path, timeout=60)
    writer.join(timeout=10)
    assert (done.returncode, done.stderr) == (0, "")
    imported = {line for line in done.stdout.splitlines() if line.endswith(" torch")}
    assert imported == {"rank 0: rich torch", "rank 1: torch"}
    startup = json.loads((tmp_path / "run/results.json").read_text())["startup"]
    assert list(startup) == CAUSES
    assert all(0 <= seconds < 30 for seconds in startup.values())
