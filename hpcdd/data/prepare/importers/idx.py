"""IDX, the format of the MNIST family (http://yann.lecun.com/exdb/mnist/): big-endian header, then raw bytes."""

from __future__ import annotations

import argparse
import gzip
import math
from pathlib import Path
from typing import IO, cast

import numpy as np

from ....core.errors import UserError
from ....decomposition.boxes import by
from ...writing import Split
from .decode_pool import DecodePool
from .file_tree import READ_ERRORS
from .image_source import ImageSource
from .row_stream import StreamedArray

SUMMARY = "a folder with the four IDX files of the MNIST family, gzip or not"
EXAMPLES = (
    "hpcdd prepare idx fashion-mnist fashion.h5 --grid 2,2",
    "hpcdd prepare idx /usr/share/datasets/fashion-mnist OUT.h5 --train-samples 10000 --test-samples 2000 "
    "--name Fashion-MNIST-12k --compression 9 --licence MIT   (the data set inside the package)",
)
_PREFIX = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of this kind: none."""


def read(source: Path, _pool: DecodePool) -> ImageSource:
    """Reads ``{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`` from a folder.

    Args:
        source: the folder.

    Returns:
        Splits ``train`` and ``test`` with uint8 images (n, 1, H, W); no class names, the format has none.

    Raises:
        UserError: a file is missing, damaged or of another format; the message names it. Images that end too early,
            in a gzip file, are met when they are read.
    """
    if not source.is_dir():
        raise UserError(
            f"{source} is not a folder; name the one that holds train-images-idx3-ubyte and its three siblings"
        )
    splits = {}
    for split, prefix in _PREFIX.items():
        images_path = _find(source, f"{prefix}-images", 3)
        labels_path = _find(source, f"{prefix}-labels", 1)
        images, labels = open_array(images_path, 3), open_array(labels_path, 1)
        if images.shape[0] != labels.shape[0]:
            raise UserError(
                f"{images_path} holds {images.shape[0]} images, but {labels_path} holds {labels.shape[0]} labels"
            )
        splits[split] = _split(images, labels.read_all())
    return ImageSource(splits, ())


def _split(images: StreamedArray, labels: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> Split:
    return Split(
        labels.astype(np.int64),
        (1, *images.shape[1:]),
        "uint8",
        lambda rows, _: (block[:, np.newaxis] for block in images.rows(rows)),
    )


def open_array(path: Path, axes: int) -> StreamedArray:
    """The bytes of one IDX file of unsigned bytes, gzip or not, with ``axes`` axes.

    Raises:
        UserError: not such a file, or (where it is not compressed) its length does not fit its header.
    """
    size = 4 + 4 * axes
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with _open(path, packed) as stream:
            header = stream.read(size)
    except READ_ERRORS as error:
        raise UserError(f"{path} can't be read: {error}") from error
    if len(header) < 4 or header[:2] != b"\0\0":
        raise UserError(f"{path} is not an IDX file: it starts with {header[:4].hex(' ') or 'nothing'}, not with 00 00")
    if header[2] != _UNSIGNED_BYTE or header[3] != axes:
        raise UserError(
            f"{path} holds type 0x{header[2]:02x} with {header[3]} axes; 0x08 (unsigned byte) with {axes} is needed"
        )
    if len(header) < size:
        raise UserError(f"{path} is damaged: its header has {len(header)} bytes, not {size}")
    shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(4, size, 4))
    array = StreamedArray(lambda: _open(path, packed), str(path), size, shape, np.dtype(np.uint8))
    if not packed and (follow := path.stat().st_size - size) != math.prod(shape):
        raise UserError(f"{path} is damaged: its header claims {by(shape)} bytes, but {follow} follow")
    return array


def _open(path: Path, packed: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else path.open("rb")


def _find(folder: Path, stem: str, axes: int) -> Path:
    names = [f"{stem}{dot}idx{axes}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds neither {' nor '.join(names)}")
