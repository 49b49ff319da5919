"""One small trained run, and its test images as files, shared by all tests of trained models."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hpcdd.cli import main
from hpcdd.data.format import inspect
from hpcdd.data.reading import BoxReader
from hpcdd.decomposition.boxes import Box

STRATEGIES = ("average", "majority", "log_pool", "dnn", "coherent_transfer", "coherent_scratch", "global")


@dataclass(frozen=True)
class Run:
    """A complete run.

    Attributes:
        path: its directory.
        data: the dataset file that it was trained on.
        folder: the images of the test split as CLASS/NNN.png.
        accuracy: of the test split by strategy, as results.json has it.
    """

    path: Path
    data: Path
    folder: Path
    accuracy: dict[str, Any]

    def test_split(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Images (n, C, *spatial) as they are stored, and labels (n,)."""
        info = inspect(self.data)
        image = info.image_shape[1:]
        return BoxReader(self.data).read("test", Box((0,) * len(image), image)), info.labels["test"]


@pytest.fixture(scope="session")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every strategy, a coarse subdomain and boxes that overlap; accuracies from low to nearly 1."""
    folder = tmp_path_factory.mktemp("inference")
    config = {
        "name": "tiny",
        "data": {"file": str(tiny), "subset": 240},
        "decomposition": {"grid": [2, 2], "overlap": 1, "coarse": True},
        "model": {"name": "vgg2", "width": 8},
        "local": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3},
        "aggregation": {"epochs": 2, "batch_size": 8},
        "coherent": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "starts": ["transfer", "scratch"]},
        "baseline": {"enabled": True, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    with contextlib.chdir(folder):
        assert main.main(["train", "tiny.yaml", "--output", "run", "--run.report", "false", "--progress", "off"]) == 0
    results = json.loads((folder / "run/results.json").read_text())
    made = Run(folder / "run", tiny, folder / "test", results["accuracy"]["test"])
    names = inspect(tiny).class_names
    for i, (image, label) in enumerate(zip(*made.test_split(), strict=True)):
        path = made.folder / names[label] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(path)
    return made
