"""The dataset file: HDF5 with one group per split, described and checked.

::

    /                 attributes hpcdd_format = 1, name, class_names, mean, std, source, licence; optional: preparation
                      (JSON: how files became images, see hpcdd.data.prepare.image_transform), fingerprint
    /train/images     (n, C, *spatial), uint8, int8, uint16, int16 or float32
    /train/labels     (n,) int64, 0 <= label < K
    /train/coarse     optional, then in every split: the images averaged, attribute block (axes,) int64
    /train/images_checksums, /train/coarse_checksums   optional: of each chunk, uint64 of the shape of their grid
    /validation/...   optional
    /test/...

``mean`` and ``std`` (C,) are those of the training split, per channel, in units of the stored values; the ``std`` of a
channel that is constant there is 1.
``coarse`` (n, C, *coarse) has the images' dtype; ``block`` pixels along each axis are averaged to one, as
:func:`hpcdd.data.coarse.average` does it.

A file with a fingerprint is checked in all that is read of it, see :mod:`hpcdd.data.checksums`: HDF5's own structure by
HDF5 (which has checksums since version 1.10 of its format), header and labels by the fingerprint, pixels by their
checksums. Who changes such a file removes fingerprint and checksums: plain HDF5 is read as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..core.errors import UserError
from ..core.hdf5 import number_of, open_hdf5
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
SPLITS = ("train", "validation", "test")
EMBEDDED_NAME = "embedded"
"""The name that stands for the data set inside the package."""

EMBEDDED = Path(__file__).parent / "embedded" / "fashion_mnist_12k.h5"

Array = npt.NDArray[Any]
_TOGETHER = 1 << 19
"""Bytes of images that are read together from a file without chunks."""


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset file says of itself, without the pixels.

    Attributes:
        path: the file.
        name: of the data set.
        class_names: K names.
        image_shape: (C, *spatial).
        dtype: of the stored pixels.
        labels: int64 (n,) by split, for the splits that are there.
        mean, std: (C,) of the training split, in units of the stored values.
        source, licence: where it comes from and on what terms.
        preparation: how files became images; None where images were no files of their own.
        coarse: block of pixels along each spatial axis that the stored coarse images average to one; None without.
        rows_at_once: training images that lie together in the file, see :func:`rows_at_once`.
        fingerprint: tells the content from any other: SHA-256 of all of the above but the path, and of the checksums of
            the pixels; for a file without checksums, of its size in their place.
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
        """K."""
        return len(self.class_names)

    @property
    def coarse_image_shape(self) -> tuple[int, ...] | None:
        """(C, *coarse) of the stored coarse images; None without."""
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
        UserError: missing, unreadable, not HDF5 or truncated; also for damage that is met inside the ``with`` block.
    """
    with open_hdf5(
        path,
        f"data.file: {path}",
        "a dataset file",
        "make a dataset file with `hpcdd prepare` (`hpcdd prepare --help` lists the formats that it reads)",
        "make it again with `hpcdd prepare`",
    ) as file:
        yield file


def rows_at_once(images: h5py.Dataset) -> int:
    """How many images one read of the file brings: those of a chunk, or half a MiB of them where there are none."""
    if images.chunks is not None:
        return int(images.chunks[0])
    each: int = math.prod(images.shape[1:]) * images.dtype.itemsize
    return max(1, _TOGETHER // each)


def inspect(path: Path) -> DatasetInfo:
    """Reads and checks everything but the pixels.

    Raises:
        UserError: the file is not a dataset file or contradicts itself; the message lists the faults found.
    """
    with open_dataset(path) as file:
        try:
            info = described(path, file)
            stored = attribute_of(file, "fingerprint")
            if stored is not None and text_of(stored) != info.fingerprint:
                raise UserError(
                    f"data.file: {path} is damaged: its header, labels or checksums have changed (the fingerprint does "
                    "not match); copy or make it again"
                )
            return info
        except UserError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # What h5py raises where the file's structure is damaged.
            raise UserError(f"data.file: {path} is damaged ({error}); copy or make it again") from error


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
        found = ", ".join(f"{split} {'none' if block is None else list(block)}" for split, block in blocks.items())
        faults.append(
            f"blocks of coarse images differ between splits ({found}); use one block for all splits, or store no "
            "coarse images"
        )
    if "train" in labels:
        present = np.unique(labels["train"])
        if len(present) < 2 and len(labels["train"]) >= 2:
            faults.append(f"train/labels holds only one class ({present[0]}); a classifier needs at least two")
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
