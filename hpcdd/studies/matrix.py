"""The runs of a study: every combination of the values along its axes, each with a name that a folder can have."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.loading import merged
from ..config.options import Tree
from ..config.renamed import current

Axis = Sequence[Any] | Mapping[str, Mapping[str, Any]]
"""Values of one field, or by label several fields that change together."""
MOST_RUNS = 10_000
_LONGEST = 150


@dataclass(frozen=True)
class Combination:
    """One run of a study.

    Attributes:
        id: name of its folder.
        fields: what it changes, by full name of the field.
        labels: by axis its value in words.
    """

    id: str
    fields: dict[str, Any]
    labels: dict[str, str]

    def tree(self, base: Tree) -> Tree:
        """The whole configuration: ``base`` with what this run changes."""
        over: Tree = {}
        for name, value in self.fields.items():
            section, _, key = current(name).partition(".")
            if key:
                over.setdefault(section, {})[key] = value
            else:
                over[section] = value
        return merged(base, over)


def expand(matrix: Mapping[str, Axis]) -> list[Combination]:
    """All combinations, the last axis fastest.

    Args:
        matrix: by full name of a field its values; or by any name a mapping from labels to fields.

    Raises:
        ValueError: two runs are the same, or there are more than :data:`MOST_RUNS`.
    """
    size = 1
    for axis in matrix.values():
        size *= len(axis)
    if size > MOST_RUNS:
        raise ValueError(f"the matrix has {size:,} runs; a study can have at most {MOST_RUNS:,}")
    points = [[(name, *point) for point in _points(name, axis)] for name, axis in matrix.items()]
    short = [name.rpartition(".")[2] for name in matrix]
    names = {name: last if short.count(last) == 1 else name for name, last in zip(matrix, short, strict=True)}
    combinations: dict[str, Combination] = {}
    for point in itertools.product(*points):
        labels = {axis: label for axis, label, _ in point}
        fields = {name: value for _, _, fields in point for name, value in fields.items()}
        run = _id(",".join(f"{names[axis]}={label}" for axis, label in labels.items()))
        if run in combinations:
            raise ValueError(f"the matrix has two runs {run}; list each value once, and give cases different labels")
        combinations[run] = Combination(run, fields, labels)
    return list(combinations.values())


def label_of(field: str, value: Any) -> str:
    """A value in words, for tables and names of folders.

    >>> label_of("decomposition.grid", [4, 4]), label_of("coherent.starts", []), label_of("data.file", "x/ct.h5")
    ('4x4', 'none', 'ct')
    """
    if field == "data.file" and isinstance(value, str):
        return Path(value).stem or value
    if value is None:
        return "none"
    if isinstance(value, bool | dict):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, list | tuple):
        numbers = all(isinstance(part, int | float) for part in value)
        return ("x" if numbers else "+").join(label_of("", part) for part in value) or "none"
    return str(value)


def _points(name: str, axis: Axis) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(axis, Mapping):
        return [(label, dict(fields)) for label, fields in axis.items()]
    labels = [label_of(name, value) for value in axis]
    if name == "data.file" and len(set(labels)) < len(labels):  # of one name in several folders
        labels = [str(value) for value in axis]
    return [(label, {name: value}) for label, value in zip(labels, axis, strict=True)]


def _id(text: str) -> str:
    """A name that every file system takes; of a long one the beginning, and a digest of all."""
    name = re.sub(r"[^\w.+=,-]+", "-", text, flags=re.ASCII).strip("-.") or "run"
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
