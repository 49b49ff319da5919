"""Arrays by name in a folder of .npy files."""

from __future__ import annotations

from pathlib import Path

from .arrays import add_arguments, open_npy, read_arrays
from .decode_pool import DecodePool
from .image_source import ImageSource

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "read"]

SUMMARY = "arrays by name in a folder of .npy files"
EXAMPLES = ("hpcdd prepare npy scans scans.h5 --images volumes --labels grades --layout NDHW --test-fraction 0.25",)


def read(source: Path, _pool: DecodePool, *, images: str | None, labels: str | None, layout: str | None) -> ImageSource:
    """See :func:`hpcdd.data.prepare.importers.arrays.read_arrays`."""
    return read_arrays(source, open_npy(source), images, labels, layout)
