"""The program that kills jobs at random moments, as docs/measurements.md calls it, for a few kills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_runs_that_are_killed_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.ranks.torture", "--kills", "2", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *jobs, counts = done.stdout.splitlines()[:-1]
    assert jobs[-1].endswith("none: exit code 0")
    assert "'kills': 2" in counts
