"""What ``hpcdd prepare`` is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """A data set as its publisher ships it, and the dataset file to make of it.

    Attributes:
        kind: of the source, see :data:`.importers.IMPORTERS`.
        source: file or folder; None for a kind that computes its images.
        out: the dataset file.
        options: of the kind, by name.
        command: that is recorded in the file.
        test_fraction, validation_fraction: of every class, where the source has no such split; None: 0.2.
        seed: of the splits, and of a phantom.
        train_samples, test_samples: to take of each split, with all classes alike; None: all.
        name, class_names, source_note, licence: what the file says of itself; None: what the source says.
        grid, overlap, coarse, compression: layout of the file; lists as ``2,2``.
        skip_bad: whether bad files are left out.
        threads: that decode files; None: one per core.
    """

    kind: str
    out: Path
    source: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    test_fraction: float | None = None
    validation_fraction: float = 0.0
    seed: int = 0
    train_samples: int | None = None
    test_samples: int | None = None
    name: str | None = None
    class_names: str | None = None
    source_note: str | None = None
    licence: str = ""
    grid: str | None = None
    overlap: str | None = None
    coarse: str | None = None
    compression: int = 4
    skip_bad: bool = False
    threads: int | None = None
