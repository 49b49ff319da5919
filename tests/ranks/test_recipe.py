"""The fast recipe, with all that belongs to it: the same bits on any number of ranks, after stops too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ..launchers import find
from .test_resume import Job, check_same, run_chain

_TRAINING = {
    "optimizer": "muon",
    "momentum": 0.6,
    "bias_learning_rate": 0.05,
    "schedule": "linear",
    "label_smoothing": 0.2,
    "ema": 0.9,
    "batch_size": 16,
    "precision": "auto",
}
RECIPE = {
    "name": "recipe",
    "decomposition": {"grid": [1, 2], "coarse": True},
    "augmentation": {"flip": [1], "translate": 1, "alternate": True, "cutout": 2, "test_flip": True},
    "model": {"name": "fast2", "width": 4},
    "local": {**_TRAINING, "epochs": 3, "learning_rate": 0.2, "dense_learning_rate": 0.5},
    "aggregation": {"features": "penultimate", "epochs": 3, "batch_size": 16, "label_smoothing": 0.1, "ema": 0.5},
    "coherent": {
        **_TRAINING,
        "epochs": 2,
        "starts": ["transfer", "scratch"],
        "features": "penultimate",
        "dnn_start": "pool",
        "dnn_learning_rate": 0.1,
        "frozen": 1,
    },
    "baseline": {**_TRAINING, "enabled": True, "epochs": 1, "learning_rate": 0.2},
}


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "data": {"file": str(tiny), "validation_fraction": 0.1}}))
    return path


def test_the_same_bits_on_any_number_of_ranks_and_after_stops(config: Path, tmp_path: Path) -> None:
    """Of the local CNNs, the coherent models and every decision; on three ranks the global CNN is trained by shares."""
    arguments: list[str | Path] = ["train", config, "--progress", "off", "--baseline.enabled", "false", "--output"]
    jobs: list[Job] = [
        (1, [*arguments, "whole"], None),
        (3, [*arguments, "three"], None),
        (2, [*arguments, "stopped"], ("local", 1, "SIGTERM@20")),
        (3, [*arguments, "stopped"], ("coherent", 0, "SIGTERM@9")),
        (1, [*arguments, "stopped"], None),
    ]
    codes, errors = run_chain(next(iter(find().values())), tmp_path, jobs, ranks=3)
    assert codes == [0, 0, 75, 75, 0], errors
    for name in ("three", "stopped"):
        check_same(tmp_path / name, tmp_path / "whole")
    accuracy = json.loads((tmp_path / "whole/results.json").read_text())["accuracy"]["test"]
    assert accuracy["coherent_transfer"] > 0.5


@pytest.mark.slow
def test_what_runs_beside_it(config: Path, tmp_path: Path) -> None:
    """Data parallelism, the distributed DNN, CNNs together, streaming, the global CNN."""
    arguments: list[str | Path] = ["train", config, "--progress", "off", "--output"]
    jobs: list[Job] = [
        (2, [*arguments, "a", "--coherent.parallelism", "data", "--aggregation.placement", "distributed"], None),
        (2, [*arguments, "b", "--batched", "true", "--data.storage", "stream", "--coherent.starts", "transfer"], None),
    ]
    codes, errors = run_chain(next(iter(find().values())), tmp_path, jobs, ranks=2)
    assert codes == [0, 0], errors
    for name in "ab":
        accuracy = json.loads((tmp_path / name / "results.json").read_text())["accuracy"]["test"]
        assert accuracy["global"] > 0.4
        assert accuracy["coherent_transfer"] > 0.5
