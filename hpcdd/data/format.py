"""The dataset file, HDF5, written by ``hpcdd prepare``; any program can write one.

Attributes of the file::

    hpcdd_format    int: version of the format, 1
    class_names     strings (K,), K >= 2: names of the classes 0 to K - 1
    mean            float (C,): mean of the training images per channel, in units of the stored values
    std             float (C,): their standard deviation per channel, likewise; 1 for a channel that is constant there
    name            string, optional: name of the data set; default: the name of the file without its suffix
    source          string, optional: where the data set comes from
    licence         string, optional: its terms of use
    command         string, optional: the command that wrote the file
    preparation     string, optional: how an image file becomes an image of the data set, JSON with the fields below
    fingerprint     string, optional: SHA-256 of attributes, labels and checksums, as 64 hexadecimal digits

Groups and datasets::

    /train                   group: the training split, at least 2 samples of at least 2 classes
    /test                    group: the test split, at least 2 samples; all datasets as in /train
    /validation              group, optional: the validation split, likewise
    /train/images            uint8, int8, uint16, int16 or float32 (n, C, *spatial): the images; C channels, then two or
                             three spatial axes; shape and dtype are the same in all splits
    /train/labels            int64 (n,): the class of each image, 0 <= label < K
    /train/coarse            optional, dtype of the images, (n, C, *coarse): the images averaged in blocks of pixels;
                             its attribute block, int64 (axes,), holds the pixels of a block along each spatial axis. In
                             every split or in none, with one block for all splits
    /train/images_checksums  optional, uint64: a checksum of each chunk of /train/images, of the shape of the grid of
                             chunks
    /train/coarse_checksums  optional, uint64: likewise for /train/coarse

Coarse images of an integer dtype are rounded to the nearest integer, halves up. Where a block does not divide the
image, the last blocks are smaller and are averaged over their own pixels.

A file with a fingerprint is verified wherever it is read: attributes and labels by the fingerprint, pixels by their
checksums, the structure by the checksums of HDF5 (version 1.10 or later of its format). After a change to such a file,
remove the fingerprint and the checksums: both are optional, and a file without them is read without verification.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..core.errors import UserError
from ..core.hdf5 import damage_reported, number_of, open_hdf5
from ..core.names import SPLITS
from ..core.texts import printable
from .checksums import fingerprint, read_checksums
from .coarse import coarse_shape
from .prepare.image_transform import Preparation
from .structure import (
    attribute_of,
    check_checksums,
    check_coarse,
    check_split,
    numbers_of,
    preparation_of,
    strings_of,
    text_of,
)

FORMAT = 1
EMBEDDED_NAME = "embedded"
"""The name that stands for the data set inside the package."""

EMBEDDED = Path(__file__).parent / "embedded" / "fashion_mnist_12k.h5"

Array = npt.NDArray[Any]
_READ_BYTES = 1 << 19
"""Bytes of images that are read at once from a file without chunks."""


@dataclass(frozen=True)
class DatasetInfo:
    """The description of a dataset file: everything but the pixels.

    Attributes:
        path: absolute path of the file.
        name: name of the data set.
        class_names: names of the K classes.
        image_shape: (C, *spatial) of an image.
        dtype: dtype of the stored pixels.
        labels: by split, the classes of its samples, int64 (n,).
        mean, std: mean and standard deviation of the training images, C numbers in units of the stored values.
        source, licence: where the data set comes from, and its terms of use.
        preparation: how an image file becomes an image; None if the images were not made from one file each.
        coarse: pixels along each spatial axis that the stored coarse images average into one; None without them.
        rows_at_once: number of training images that one read of the file brings.
        fingerprint: identifies the content: SHA-256 of all of the above except the path, and of the checksums of the
            pixels (for a file without checksums, of its size instead).
    """

    path: Path
    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    dtype: str
    labels: dict[str, npt.NDArray[np.int64]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str
    preparation: Preparation | None
    coarse: tuple[int, ...] | None
    rows_at_once: int
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def coarse_image_shape(self) -> tuple[int, ...] | None:
        """(C, *coarse) of a stored coarse image; None without them."""
        if self.coarse is None:
            return None
        return self.image_shape[0], *coarse_shape(self.image_shape[1:], self.coarse)

    @property
    def samples(self) -> dict[str, int]:
        """Number of samples by split."""
        return {split: len(values) for split, values in self.labels.items()}


def resolve(file: str) -> Path:
    """The path behind ``data.file``: a path, or ``embedded`` for the data set inside the package."""
    return EMBEDDED if file == EMBEDDED_NAME else Path(file)


@contextmanager
def open_dataset(path: Path) -> Iterator[h5py.File]:
    """Opens a dataset file for reading, without locks, so that any number of ranks can share it.

    Raises:
        UserError: missing, unreadable, not HDF5 or truncated; also where the ``with`` block can't read on.
    """
    with open_hdf5(
        path,
        f"data.file: {path}",
        "a dataset file",
        "make a dataset file with `hpcdd prepare` (`hpcdd prepare --help` lists the formats that it reads)",
        "make it again with `hpcdd prepare`",
    ) as file:
        yield file


def reading_dataset(path: Path) -> AbstractContextManager[None]:
    """For a ``with`` block that reads of an open dataset file and does nothing else: its damage is a UserError."""
    return damage_reported(lambda reason: f"data.file: {path} is damaged ({reason}); copy or make it again")


def rows_at_once(images: h5py.Dataset) -> int:
    """How many images one read of the file brings: those of a chunk, or half a MiB of them where there are none."""
    if images.chunks is not None:
        return int(images.chunks[0])
    each: int = math.prod(images.shape[1:]) * images.dtype.itemsize
    return max(1, _READ_BYTES // each)


def inspect(path: Path) -> DatasetInfo:
    """Reads and checks everything but the pixels.

    Raises:
        UserError: the file is not a dataset file or contradicts itself; the message lists the faults found.
    """
    with open_dataset(path) as file, reading_dataset(path):
        info = described(path, file)
        stored = attribute_of(file, "fingerprint")
        if stored is not None and text_of(stored) != info.fingerprint:
            raise UserError(
                f"data.file: {path} is damaged: its header, labels or checksums have changed (the fingerprint does not "
                "match); copy or make it again"
            )
        return info


def described(path: Path, file: h5py.File) -> DatasetInfo:
    """As :func:`inspect`, of a file that is open, whatever its fingerprint says.

    Raises:
        UserError: see there; where the structure is damaged h5py's exceptions are raised as well.
    """
    version = number_of(attribute_of(file, "hpcdd_format"))
    if version is None:
        raise UserError(f"data.file: {path} is HDF5, but not a dataset file of hpcdd (no attribute hpcdd_format)")
    if np.ndim(version) or version != FORMAT:
        raise UserError(f"data.file: {path} has hpcdd_format {version}; this version of hpcdd reads format {FORMAT}")
    faults: list[str] = []
    class_names = strings_of(file, "class_names", faults)
    shapes, dtypes, labels, blocks, at_once = {}, {}, {}, {}, {}
    for split in SPLITS:
        if split not in file:
            if split != "validation":
                faults.append(f"there is no group {split!r}")
            continue
        images_labels = check_split(file, split, len(class_names), faults)
        if images_labels is not None:
            images, labels[split] = images_labels
            shapes[split], dtypes[split] = tuple(images.shape[1:]), str(images.dtype)
            at_once[split] = rows_at_once(images)
            before = len(faults)
            block = check_coarse(file, split, images, faults)
            check_checksums(file, split, faults)
            if len(faults) == before:
                blocks[split] = block
    if len(set(shapes.values())) > 1 or len(set(dtypes.values())) > 1:
        faults.append(f"images differ between splits: shapes {shapes}, dtypes {dtypes}")
    if len(set(blocks.values())) > 1:
        listed = ", ".join(f"{split} {'none' if block is None else list(block)}" for split, block in blocks.items())
        faults.append(
            f"blocks of coarse images differ between splits ({listed}); use one block for all splits, or store no "
            "coarse images"
        )
    channels = next(iter(shapes.values()))[0] if shapes else 0
    mean, std = (numbers_of(file, key, channels, faults) for key in ("mean", "std"))
    if any(not value > 0 for value in std):
        faults.append(f"attribute std is {list(std)}; it must be positive for every channel (1 for a constant channel)")
    preparation = preparation_of(file, next(iter(shapes.values()), None), faults)
    if faults:
        raise UserError("\n".join(f"data.file: {path}: {fault}" for fault in faults))
    info = DatasetInfo(
        path=path.absolute(),
        name=text_of(attribute_of(file, "name", path.stem)),
        class_names=class_names,
        image_shape=shapes["train"],
        dtype=dtypes["train"],
        labels=labels,
        mean=mean,
        std=std,
        source=text_of(attribute_of(file, "source", "")),
        licence=text_of(attribute_of(file, "licence", "")),
        preparation=preparation,
        coarse=blocks["train"],
        rows_at_once=at_once["train"],
        fingerprint="",
    )
    # Of the names as they are stored; all that shows them gets what can be shown.
    stored = _fingerprint(info, file)
    return replace(info, fingerprint=stored, name=printable(info.name), class_names=tuple(map(printable, class_names)))


def _fingerprint(info: DatasetInfo, file: h5py.File) -> str:
    header = {
        key: getattr(info, key)
        for key in (
            *("name", "class_names", "image_shape", "dtype", "mean", "std"),
            *("source", "licence", "coarse", "rows_at_once"),
        )
    }
    if info.preparation is not None:  # files without one keep the fingerprint that they had before there were any
        header["preparation"] = info.preparation.to_json()
    names = [(split, name) for split in info.labels for name in ("images", "coarse") if name in file[split]]
    checksums = [read_checksums(file[split], name) for split, name in names]
    known = [values.astype("<u8").tobytes() for values in checksums if values is not None]
    if len(known) < len(names):
        known.append(info.path.stat().st_size.to_bytes(8, "little"))
    return fingerprint(header, info.labels, known)
