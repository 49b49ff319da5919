"""What a person can't see by eye in every change: style, types, and that the data go one way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--no-cache", "."],
        ["ruff", "format", "--no-cache", "--check", "."],
        ["mypy"],
        ["lint-imports", "--no-cache"],
    ],
    ids=["lint", "format", "types", "one-way"],
)
def test_checks(command: list[str]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_readable() -> None:
    """A file of 100 to 300 lines is a good room; nothing grows beyond."""
    long = {path.name: n for path in ROOT.glob("hpcdd/**/*.py") if (n := len(path.read_text().splitlines())) > 320}
    assert not long
