"""Directories of studies as `hpcdd study` leaves them, with results that are known."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcdd.artifacts import study_index
from hpcdd.artifacts.documents import write_document
from hpcdd.artifacts.study_index import StudyEntry, StudyIndex, TableOf
from hpcdd.studies.study_results import FAILED, RUNS

Accuracies = Mapping[str, Any]
COUNTS = {"global": 1000, "local": [200, 210, 220, 230], "dnn": 40, "coherent": 890}
CORE_SECONDS = {
    "start": 1.0,
    "local": 40.0,
    "gather": 0.5,
    "dnn": 2.0,
    "coherent_transfer": 30.0,
    "coherent_scratch": 60.0,
    "global": 120.0,
    "total": 300.0,
}


def results(test: Accuracies, *, boxes: int = 4, core_seconds: Mapping[str, float] = CORE_SECONDS) -> dict[str, Any]:
    """The content of a results.json, as far as tables read it and a little more."""
    return {
        "format": 1,
        "name": "made",
        "seed": 0,
        "width": {"global": 8, "local": 4},
        "dataset": {"name": "stripes", "train": 300, "test": 90, "classes": 3, "image_shape": [1, 12, 12]},
        "decomposition": {"grid": [2, 2], "overlap": [0, 0], "boxes": [[[0, 0], [6, 6]]] * boxes},
        "parameters": COUNTS,
        "accuracy": {"train": {"dnn": 1.0}, "test": dict(test)},
        "seconds": {"total": 3.0},
        "core_seconds": dict(core_seconds),
        "ranks": 4,
        "devices": ["cpu"] * 4,
    }


def study(
    folder: Path,
    measured: Callable[[dict[str, str], int], Accuracies | str | None],
    *,
    matrix: Mapping[str, Sequence[Any]] | None = None,
    expect: Sequence[str] = ("dnn > average", "average > majority"),
    columns: Sequence[str] | None = None,
    title: str = "a made study",
    cost: Callable[[dict[str, str]], Mapping[str, float]] = lambda _: CORE_SECONDS,
) -> Path:
    """Writes a study.

    Args:
        folder: its directory.
        measured: by labels and seed, the accuracies on the test split; a text for a failed run; None for none.
        matrix: by axis its values; default: a grid and three seeds.
        expect, columns, title: of the index.
        cost: by labels, CPU seconds by phase.
    """
    matrix = matrix or {"decomposition.grid": [[2, 2], [4, 4]], "seed": [0, 1, 2]}
    entries = []
    for values in itertools.product(*matrix.values()):
        fields = dict(zip(matrix, values, strict=True))
        labels = {axis: "x".join(map(str, v)) if isinstance(v, list) else str(v) for axis, v in fields.items()}
        name = ",".join(f"{axis.rsplit('.', 1)[-1]}={label}" for axis, label in labels.items()).replace("/", "-")
        entries.append(StudyEntry(id=name, fields=fields, labels=labels))
        outcome = measured(labels, int(fields.get("seed", 0)))
        if isinstance(outcome, str):
            write(folder / FAILED / f"{name}.json", {"error": outcome, "exit_code": 3})
        elif outcome is not None:
            write(folder / RUNS / name / "results.json", results(outcome, core_seconds=cost(labels)))
    folder.mkdir(parents=True, exist_ok=True)
    table = TableOf.model_validate({"columns": columns})
    made = StudyIndex(
        name="made", title=title, matrix=dict(matrix), expect=tuple(expect), table=table, runs=tuple(entries)
    )
    write_document(folder / study_index.NAME, made)
    return folder


def write(path: Path, content: object) -> None:
    """A JSON file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
