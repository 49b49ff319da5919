"""The command that the README opens with, and the accuracies that it promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..launchers import Launcher


def test_quick_start_on_a_part_of_its_images(mpi: Launcher, tmp_path: Path) -> None:
    options = ["--data.subset", "600"]
    for section in ("local", "aggregation", "coherent"):
        options += [f"--{section}.epochs", "1"]
    done = mpi.hpcdd(4, options, tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "quickstart-001"
    assert done.stdout.endswith(f"report: {run.relative_to(tmp_path)}/report.html\n")
    assert "quickstart" in (run / "report.html").read_text()
    results = json.loads((run / "results.json").read_text())
    assert results["ranks"] == 4
    assert {"local", "average", "majority", "dnn", "coherent_transfer"} <= results["accuracy"]["test"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *[pytest.param(seed, marks=pytest.mark.figures) for seed in (1, 2)]])
def test_quick_start(mpi: Launcher, tmp_path: Path, seed: int) -> None:
    # The whole of it once; what the other seeds show does not need its last phase.
    options = [] if seed == 0 else ["--seed", str(seed), "--coherent.starts", "[]"]
    done = mpi.hpcdd(4, options, tmp_path)
    assert done.returncode == 0, done.stderr
    if not options:
        report = tmp_path / "runs" / "quickstart-001" / "report.html"
        assert done.stdout.endswith(f"report: {report.relative_to(tmp_path)}\n")
        assert "quickstart" in report.read_text()
    accuracy = json.loads((tmp_path / "runs" / "quickstart-001" / "results.json").read_text())["accuracy"]["test"]
    assert accuracy["dnn"] >= 0.84
    assert seed != 0 or accuracy["coherent_transfer"] >= 0.905  # 0.912; other processors round differently
    assert accuracy["dnn"] > accuracy["average"]
    assert accuracy["average"] >= accuracy["majority"] - 0.01
    assert accuracy["average"] > max(accuracy["local"]), "the decomposition is worth it"
