"""The tutorial and the examples do what they say."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..launchers import Launcher
from ..waiting import LIMIT
from .pages import ROOT, blocks, page

pytestmark = pytest.mark.slow


def run(command: str, folder: Path) -> str:
    """A command as a user types it, with this Python and its scripts first on PATH; what it prints."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_tutorial(mpi: Launcher, tmp_path: Path) -> None:
    assert mpi is not None, "there is no MPI"
    text = page("docs/tutorial.md")
    shutil.copytree(ROOT / "docs/examples", tmp_path / "docs/examples")
    for name, content in blocks(text, "file"):
        (tmp_path / name).write_text(content)
    commands = [command for _, command in blocks(text, "run")]
    assert len(commands) == 8
    printed = {command: run(command, tmp_path) for command in commands}
    assert (tmp_path / "photos.png").stat().st_size > 10_000
    assert (tmp_path / "runs/photos/report.html").exists()
    assert "coherent model, by transfer" in printed["hpcdd evaluate runs/photos"]
    assert (tmp_path / "photos.onnx").stat().st_size > 10_000
    lines = printed["hpcdd predict runs/photos photos/Sneaker"].splitlines()
    correct = sum(line.split()[1] == "Sneaker" for line in lines if line.startswith("photos/Sneaker/"))
    assert correct > 60, "of 120 pictures"


def test_a_dataset_file_of_ones_own(mpi: Launcher, tmp_path: Path) -> None:
    run(f"python {ROOT}/docs/examples/write_dataset.py stripes.h5", tmp_path)
    options = "--data.file stripes.h5 --model.name vgg1 --model.width 8 --output run"
    epochs = "--local.epochs 2 --aggregation.epochs 3 --coherent.epochs 1"
    done = mpi.hpcdd(2, shlex.split(f"{options} {epochs}"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/results.json").read_text())["dataset"]["name"] == "stripes"


def test_a_cnn_of_ones_own_and_the_notebook(mpi: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "docs/examples/own_cnn.py", tmp_path)
    options = [
        "--model.name",
        "own_cnn:make",
        "--model.options",
        "{depth: 2}",
        "--model.width",
        "8",
        "--data.subset",
        "200",
    ]
    options += ["--local.epochs", "1", "--aggregation.epochs", "1", "--coherent.epochs", "1"]
    options += ["--coherent.features", "penultimate", "--coherent.dropout-scale", "1"]
    done = mpi.hpcdd(1, [*options, "--output", "runs/quickstart-001"], tmp_path)
    assert done.returncode == 0, done.stderr
    cells = json.loads(page("docs/examples/load.ipynb"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = "\n".join(code) + "\nassert probabilities.shape == (8, 10)\n"
    (tmp_path / "cells.py").write_text(script)
    monkeypatch.setenv("HPCDD_MODEL_MODULES", "own_cnn")
    run("python cells.py", tmp_path)
