"""CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html), with its 100 fine or its 20 coarse labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import cifar
from .decode_pool import DecodePool
from .image_source import ImageSource

SUMMARY = "CIFAR-100: the binary or the Python archive, or the folder extracted from it"
EXAMPLES = ("hpcdd prepare cifar100 cifar-100-python.tar.gz cifar100.h5 --labels coarse",)
LABELS = ("fine", "coarse")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of this kind."""
    parser.add_argument(
        "--labels", choices=LABELS, default="fine", help="100 fine classes or 20 coarse ones (default: fine)"
    )


def read(source: Path, _pool: DecodePool, *, labels: str = "fine") -> ImageSource:
    """See :func:`hpcdd.data.prepare.importers.cifar.read`; ``labels`` is one of :data:`LABELS`."""
    which = ("coarse", "fine").index(labels)  # the order of the two bytes in a record
    releases = (
        cifar.Release({"train": ["train.bin"], "test": ["test.bin"]}, (2, which), f"{labels}_label_names.txt"),
        cifar.Release({"train": ["train"], "test": ["test"]}, f"{labels}_labels", "meta", f"{labels}_label_names"),
    )
    return cifar.read(source, f"CIFAR-100 ({labels} labels)", releases)
