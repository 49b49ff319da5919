"""CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import cifar
from .decode_pool import DecodePool
from .image_source import ImageSource

SUMMARY = "CIFAR-10: the binary or the Python archive, or the folder extracted from it"
EXAMPLES = ("hpcdd prepare cifar10 cifar-10-binary.tar.gz cifar10.h5 --grid 2,2 --coarse 2",)
_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
_RELEASES = (
    cifar.Release(
        {"train": [f"{batch}.bin" for batch in _BATCHES], "test": ["test_batch.bin"]}, (1, 0), "batches.meta.txt"
    ),
    cifar.Release({"train": _BATCHES, "test": ["test_batch"]}, "labels", "batches.meta", "label_names"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of this kind: none."""


def read(source: Path, _pool: DecodePool) -> ImageSource:
    """See :func:`hpcdd.data.prepare.importers.cifar.read`."""
    return cifar.read(source, "CIFAR-10", _RELEASES)
