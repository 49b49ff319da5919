"""The figures on the real CIFAR-10 (not part of the repository): ``HPCDD_CIFAR10=FILE.h5 pytest -m cifar10``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ..launchers import Launcher
from ..waiting import LIMIT

CONFIG = Path(__file__).parents[2] / "configs" / "cifar10_vgg3.yaml"


@pytest.mark.cifar10
def test_the_accuracies_that_the_readme_states(mpi: Launcher, tmp_path: Path) -> None:
    file = Path(os.environ["HPCDD_CIFAR10"]).absolute()
    done = mpi.hpcdd(5, ["train", CONFIG, "--data.file", file, "--output", "run"], tmp_path, timeout=6 * LIMIT)
    assert done.returncode == 0, done.stderr
    accuracy = json.loads((tmp_path / "run" / "results.json").read_text())["accuracy"]["test"]
    assert accuracy["coherent_transfer"] >= 0.78
    assert accuracy["coherent_transfer"] >= accuracy["dnn"] + 0.015
    assert accuracy["dnn"] >= 0.69
    assert accuracy["average"] >= 0.655
    assert accuracy["majority"] >= 0.635
    assert accuracy["dnn"] > accuracy["average"] > accuracy["majority"] > max(accuracy["local"])
