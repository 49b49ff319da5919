"""A row of the table of bad input: what is given, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

SENTINEL = "ran"
"""Whoever runs code from a file of these tests makes a file of this name in the current folder."""
CODE = f"open({SENTINEL!r}, 'w').close()"
"""Such code."""
LONG = "n" * 300
"""A longer name than any file can have."""
CLASSES = ("ant", "bee", "cat")

Make = Callable[[], None]


@dataclass(frozen=True)
class Row:
    """One wrong input.

    Attributes:
        name: of the row.
        arguments: behind ``hpcdd``. The current folder holds the dataset file ``good.h5``.
        message: what stderr says (see :func:`.outcome.check_message`), without the program's name in front of each
            line; FOLDER stands for the current folder, and HOST for the host's name.
        make: makes the wrong files in the current folder.
        variables: of the environment.
        exit_code: of the process.
        mpirun: whether the row also runs as a job of one rank and of three.
    """

    name: str
    arguments: tuple[str, ...]
    message: str
    make: Make = field(default=lambda: None)
    variables: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 2
    mpirun: bool = False


def write_good(path: Path) -> None:
    """A dataset file: 24 training and 12 test images of 2 channels and 8 x 6 pixels in three classes."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, n in (("train", 24), ("test", 12)):
            file[f"{split}/images"] = generator.integers(0, 100, (n, 2, 8, 6)).astype(np.uint8)
            file[f"{split}/labels"] = np.arange(n) % len(CLASSES)
        file.attrs["hpcdd_format"] = 1
        file.attrs["class_names"] = CLASSES
        file.attrs["mean"], file.attrs["std"] = [50.0, 50.0], [28.0, 28.0]


def text(content: str | bytes, name: str = "c.yaml") -> Make:
    """Writes a file."""
    return lambda: void(Path(name).write_bytes(content if isinstance(content, bytes) else content.encode()))


def folder(*names: str) -> Make:
    """Makes folders."""

    def make() -> None:
        for name in names:
            Path(name).mkdir(parents=True)

    return make


def void(_: object) -> None:
    """Drops what a call gives, for functions of one expression."""
