"""The command that the README opens with, and the accuracies that it promises."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ..launchers import Launcher


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_quick_start(mpi: Launcher, tmp_path: Path, seed: int) -> None:
    start = time.monotonic()
    done = mpi.hpcdd(4, [] if seed == 0 else ["--seed", str(seed)], tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 120
    accuracy = json.loads((tmp_path / "runs" / "quickstart-001" / "results.json").read_text())["accuracy"]["test"]
    assert accuracy["coherent_transfer"] > accuracy["dnn"] >= 0.84
    assert accuracy["dnn"] > accuracy["average"]
    assert accuracy["average"] >= accuracy["majority"] - 0.01
    assert accuracy["average"] > max(accuracy["local"]), "the decomposition is worth it"
