"""A run directory as `hpcdd train` writes it, as far as its page reads it, with random predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpcdd.config.loading import to_yaml
from hpcdd.config.schema import Config

from ..artificial import make_predictions


def run(
    folder: Path,
    *,
    grid: tuple[int, ...] = (2, 2),
    overlap: int = 0,
    coarse: bool = False,
    image_shape: tuple[int, ...] = (1, 12, 12),
    num_classes: int = 3,
    starts: tuple[str, ...] = ("transfer",),
    validation: bool = True,
    name: str = "made",
    dataset: str = "stripes",
) -> Path:
    """Writes a run of CNNs on a grid of subimages."""
    settings: dict[str, Any] = {
        "name": name,
        "decomposition": {"grid": grid, "overlap": overlap, "coarse": coarse},
        "coherent": {"starts": starts},
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(Config.model_validate(settings)))
    boxes = 1
    for n in grid:
        boxes *= n
    subdomains = boxes + coarse
    names = ["average", "majority", "log_pool", "dnn", *(f"coherent_{start}" for start in starts)]
    split_predictions = make_predictions(
        120, subdomains, num_classes, strategies=names, image_shape=image_shape, dataset=dataset
    )
    split_predictions.write(folder / "decisions.h5")
    phases = ["dnn", *names[4:]]
    seconds = dict.fromkeys(phases, 2.0)
    results = {
        "format": 1,
        "name": name,
        "seed": 0,
        "dataset": {
            "name": dataset, "train": 300, "test": 120, "classes": num_classes, "image_shape": list(image_shape),
        },
        "decomposition": {"grid": list(grid), "boxes": [[[0, 0], [6, 6]]] * boxes},
        "width": {"global": 8, "local": 4},
        "parameters": {"global": 1000, "local": [200] * subdomains, "dnn": 40, "coherent": 890},
        "accuracy": {"test": {"local": [0.5] * subdomains, **dict.fromkeys(names, 0.6)}},
        "seconds": {"start": 1.0, "read": 0.5, "local": [3.0] * subdomains, "gather": 0.1, **seconds, "total": 9.0},
        "core_seconds": {"local": 12.0, **seconds, "total": 20.0},
        "communication": {
            "local": {"calls": 0, "bytes": 0},
            "coherent_transfer": {"calls": 9, "bytes": 900, "bytes_per_step": 100},
        },
        "memory": [1 << 29] * 4,
        "ranks": 4, "replicas": 1, "hosts": 1, "devices": ["cpu"] * 4, "threads_per_rank": 1,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    lines = []
    for phase, subdomain in [*(("local", s) for s in range(subdomains)), *((phase, None) for phase in phases)]:
        for epoch in range(1, 4):
            validation_value = 1 - 0.4 / epoch if validation else None
            lines.append({
                "phase": phase, "subdomain": subdomain, "epoch": epoch, "loss": 1 / epoch, "accuracy": 1 - 0.5 / epoch,
                "validation_loss": validation_value, "validation_accuracy": validation_value, "learning_rate": 0.1,
                "seconds": float(epoch), "samples_per_second": 100.0,
            })  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
