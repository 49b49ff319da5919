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
        kind: kind of the source, such as ``folder``.
        source: file or folder; None for a kind that computes its images.
        out: path of the dataset file.
        options: options of the kind, by name.
        command: the command that is recorded in the file.
        test_fraction: fraction of every class for the test split, if the source has none; None: 0.2.
        validation_fraction: fraction of every class for the validation split, if the source has none; 0: no split.
        seed: seed of the splits, and of a phantom.
        train_samples, test_samples: number of samples to take of the split, equally many of each class; None: all.
        name: name of the data set; None: that of the source.
        class_names: names of the classes, as ``A,B,C``; None: those of the source.
        source_note: where the data set comes from; None: what the source says.
        licence: its terms of use.
        grid, overlap: decomposition for which the file is cut into chunks, as ``2,2``; None: chunks of whole images.
        coarse: block of pixels, as ``2,2``, in which averaged images are stored as well; None: none are stored.
        compression: gzip level, 0 to 9; 0 stores the pixels uncompressed.
        skip_bad: whether files that can't be read are left out and counted.
        threads: number of threads that decode files; None: one per core.
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
