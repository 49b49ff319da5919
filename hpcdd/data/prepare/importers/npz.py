"""Arrays by name in an .npz archive; MedMNIST files, 2D and 3D, as they come."""

from __future__ import annotations

from pathlib import Path

from .arrays import add_arguments, open_npz, read_arrays
from .decode_pool import DecodePool
from .image_source import ImageSource

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "read"]

SUMMARY = "arrays by name in an .npz archive (MedMNIST 2D and 3D files as they come)"
EXAMPLES = (
    "hpcdd prepare npz pneumoniamnist.npz pneumonia.h5 --class-names normal,pneumonia --grid 2,2",
    "hpcdd prepare npz mnist.npz mnist.h5 --images 'x_{split}' --labels 'y_{split}'",
)


def read(source: Path, _pool: DecodePool, *, images: str | None, labels: str | None, layout: str | None) -> ImageSource:
    """See :func:`hpcdd.data.prepare.importers.arrays.read_arrays`."""
    return read_arrays(source, open_npz(source), images, labels, layout)
