"""Readers of data sets as their publishers ship them: one file a kind, each a function from a path to splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..write import Split
from . import folder, idx


@dataclass(frozen=True)
class Importer:
    """One kind of source.

    Attributes:
        summary: what it reads, for ``--help``.
        read: from the source's path to its splits and its class names (empty where the source has none).
    """

    summary: str
    read: Callable[[Path], tuple[dict[str, Split], tuple[str, ...]]]


IMPORTERS = {
    "idx": Importer("a folder with the four IDX files of the MNIST family, gzip or not", idx.read),
    "folder": Importer("train/CLASS/FILE and test/CLASS/FILE: images of one size (JPEG, PNG, ...)", folder.read),
}
