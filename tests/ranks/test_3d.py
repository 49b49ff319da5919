"""Volumes end to end: from the source, through `prepare`, to the coherent model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcdd.cli import prepare

from ..data.prepare.importers.sources import write_files
from ..data.prepare.importers.test_nifti import nii
from ..launchers import Launcher
from ..waiting import LIMIT

CONFIG = Path(__file__).parents[2] / "configs" / "phantom_ct.yaml"


def results_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    return content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "grid", "subdomains"), [("vgg2", "2,2,1", 4), ("resnet8", "2,2,2", 8)], ids=["vgg", "resnet"]
)
def test_a_nifti_folder(mpi: Launcher, tmp_path: Path, model: str, grid: str, subdomains: int) -> None:
    """Volumes of odd sizes, of which one class is brighter: whoever sees a part of them can tell."""
    generator = np.random.default_rng(0)
    files = {}
    for number in range(60):
        shape = (10 + number % 3, 9, 11)
        voxels = generator.normal(-600 + 500 * (number % 2), 200, shape).astype(np.int16)
        files[f"{'bright' if number % 2 else 'dark'}/study_{number:04d}.nii.gz"] = nii(voxels)
    source = write_files(tmp_path / "studies", files)
    prepare.run_without_mpi(["nifti", str(source), str(tmp_path / "ct.h5"), "--size", "9", "8", "10", "--grid", grid])
    arguments = [
        "train", "--data.file", "ct.h5", "--decomposition.grid", grid, "--decomposition.coarse", "true",
        "--model.name", model, "--model.width", "8", "--model.local_width", "4", "--output", "run",
        "--augmentation.flip", "2", "--augmentation.translate", "1", "--data.validation_fraction", "0",
    ]  # fmt: skip
    for section in ("local", "aggregation", "coherent"):
        arguments += [f"--{section}.batch_size", "8", f"--{section}.epochs", "8"]
    done = mpi.hpcdd(3, [*arguments, "--coherent.dropout_scale", "1", "--aggregation.hidden", "8"], tmp_path)
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "run")
    assert len(results["accuracy"]["test"]["local"]) == subdomains + 1
    assert results["dataset"]["image_shape"] == [1, 9, 8, 10]
    assert results["accuracy"]["test"]["coherent_transfer"] >= 0.75
    assert results["communication"]["coherent_transfer"]["calls_per_step"] == 1


@pytest.mark.figures
def test_the_phantom_as_the_readme_states(mpi: Launcher, tmp_path: Path) -> None:
    prepare.run_without_mpi(["phantom", str(tmp_path / "phantom.h5"), "--grid", "2,2,2"])
    done = mpi.hpcdd(4, ["train", CONFIG, "--output", "run"], tmp_path, timeout=6 * LIMIT)
    assert done.returncode == 0, done.stderr
    accuracy = results_of(tmp_path / "run")["accuracy"]["test"]
    assert accuracy["dnn"] > max(accuracy["local"])
    assert accuracy["dnn"] >= accuracy["average"]  # equal since batch norm adds up accurately
    assert accuracy["coherent_transfer"] > accuracy["dnn"]
