"""The dataset file: HDF5 with one group per split, described and checked.

::

    /                 attributes hpcdd_format = 1, name, class_names, mean, std, source, licence
    /train/images     (n, C, *spatial), uint8, int8, uint16, int16 or float32
    /train/labels     (n,) int64, 0 <= label < K
    /train/coarse     optional, then in every split: the images averaged, attribute block (axes,) int64
    /validation/...   optional
    /test/...

``mean`` and ``std`` (C,) are those of the training split, per channel, in units of the stored values.
``coarse`` (n, C, *coarse) has the images' dtype; ``block`` pixels along each axis are averaged to one, as
:func:`hpcdd.data.coarse.average` does it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..hdf5 import leads_outside, open_hdf5
from .coarse import coarse_shape, misfit

FORMAT = 1
SPLITS = ("train", "validation", "test")
DTYPES = ("uint8", "int8", "uint16", "int16", "float32")
"""Dtypes of pixels; all are exact in float32, in which CNNs compute."""
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
        coarse: block of pixels along each spatial axis that the stored coarse images average to one; None without.
        rows_at_once: training images that lie together in the file, see :func:`rows_at_once`.
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
    coarse: tuple[int, ...] | None
    rows_at_once: int
    fingerprint: str = ""

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
            return _inspect(path, file)
        except UserError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # What h5py raises where the file's structure is damaged.
            raise UserError(f"data.file: {path} is damaged ({error}); copy or make it again") from error


def _inspect(path: Path, file: h5py.File) -> DatasetInfo:
    version = file.attrs.get("hpcdd_format")
    if version is None:
        raise UserError(f"data.file: {path} is HDF5, but not a dataset file of hpcdd (no attribute hpcdd_format)")
    if np.ndim(version) or version != FORMAT:
        raise UserError(f"data.file: {path} has hpcdd_format {version}; this version of hpcdd reads format {FORMAT}")
    faults: list[str] = []
    class_names = _strings(file, "class_names", faults)
    shapes, dtypes, labels, blocks, at_once = {}, {}, {}, {}, {}
    for split in SPLITS:
        if split not in file:
            if split != "validation":
                faults.append(f"there is no group {split!r}")
            continue
        images_labels = _check_split(file, split, len(class_names), faults)
        if images_labels is not None:
            images, labels[split] = images_labels
            shapes[split], dtypes[split] = tuple(images.shape[1:]), str(images.dtype)
            at_once[split] = rows_at_once(images)
            before = len(faults)
            block = _check_coarse(file, split, images, faults)
            if len(faults) == before:
                blocks[split] = block
    if len(set(shapes.values())) > 1 or len(set(dtypes.values())) > 1:
        faults.append(f"images differ between splits: shapes {shapes}, dtypes {dtypes}")
    if len(set(blocks.values())) > 1:
        found = ", ".join(f"{split} {'none' if block is None else list(block)}" for split, block in blocks.items())
        faults.append(f"blocks of coarse images differ between splits ({found}); store all with one block, or none")
    if "train" in labels:
        present = np.unique(labels["train"])
        if len(present) < 2 and len(labels["train"]) >= 2:
            faults.append(f"train/labels holds one class only ({present[0]}); a classifier needs two or more")
    channels = next(iter(shapes.values()))[0] if shapes else 0
    mean, std = (_per_channel(file, key, channels, faults) for key in ("mean", "std"))
    if any(not value > 0 for value in std):
        faults.append(f"attribute std is {list(std)}; every channel's must be positive")
    if faults:
        raise UserError("\n".join(f"data.file: {path}: {fault}" for fault in faults))
    return DatasetInfo(
        path=path.absolute(),
        name=str(file.attrs.get("name", path.stem)),
        class_names=class_names,
        image_shape=shapes["train"],
        dtype=dtypes["train"],
        labels=labels,
        mean=mean,
        std=std,
        source=str(file.attrs.get("source", "")),
        licence=str(file.attrs.get("licence", "")),
        coarse=blocks["train"],
        rows_at_once=at_once["train"],
    )


def _check_split(
    file: h5py.File, split: str, num_classes: int, faults: list[str]
) -> tuple[h5py.Dataset, npt.NDArray[np.int64]] | None:
    before = len(faults)
    for name in (split, f"{split}/images", f"{split}/labels"):
        if not _is_there(file, name, h5py.Group if name == split else h5py.Dataset, faults):
            return None
    images, labels = file[f"{split}/images"], file[f"{split}/labels"]
    if images.shape is None or labels.shape is None:
        faults.append(f"{split}/images or {split}/labels is empty")
        return None
    if len(images.shape) not in (4, 5) or math.prod(images.shape[1:]) == 0:
        faults.append(f"{split}/images has shape {images.shape}; (n, C, H, W) or (n, C, D, H, W) is needed")
    if str(images.dtype) not in DTYPES:
        faults.append(f"{split}/images is {images.dtype}; one of {', '.join(DTYPES)} is needed")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        faults.append(f"{split}/labels is {labels.dtype} of shape {labels.shape}; int64 of shape (n,) is needed")
    elif images.shape[:1] != labels.shape:
        faults.append(f"{split}/images holds {images.shape[0]} samples, but {split}/labels {labels.shape[0]}")
    elif labels.shape[0] < 2:
        faults.append(f"split {split!r} has too few samples ({labels.shape[0]}); 2 is the least")
    if len(faults) > before:
        return None
    values = labels[:].astype(np.int64)
    wrong = np.flatnonzero((values < 0) | (values >= num_classes))
    if wrong.size and num_classes:
        faults.append(
            f"{split}/labels[{wrong[0]}] is {values[wrong[0]]}, out of range for {num_classes} classes "
            f"(0 to {num_classes - 1}); {wrong.size} such labels"
        )
        return None
    return images, values


def _check_coarse(file: h5py.File, split: str, images: h5py.Dataset, faults: list[str]) -> tuple[int, ...] | None:
    """The block of a split's coarse images; None without any."""
    name = f"{split}/coarse"
    if file.get(name, getclass=True, getlink=True) is None or not _is_there(file, name, h5py.Dataset, faults):
        return None
    coarse = file[name]
    value = np.asarray(coarse.attrs.get("block"))
    if value.ndim != 1 or value.dtype.kind not in "iu":
        faults.append(f"attribute block of {name} must hold an integer for each spatial axis")
        return None
    block = tuple(int(b) for b in value)
    if fault := misfit(block, images.shape[2:]):
        faults.append(f"{name}: {fault}")
        return None
    expected = (*images.shape[:2], *coarse_shape(images.shape[2:], block))
    if (coarse.shape, coarse.dtype) != (expected, images.dtype):
        faults.append(
            f"{name} is {coarse.dtype} of shape {coarse.shape}; {images.dtype} of shape {expected} is needed for "
            f"{split}/images in blocks of {list(block)}"
        )
    return block


def _is_there(file: h5py.File, name: str, kind: type[h5py.HLObject], faults: list[str]) -> bool:
    """Whether the file itself holds a group or dataset."""
    before = len(faults)
    if fault := leads_outside(file, name):
        faults.append(f"{name} {fault}; a dataset file holds its data itself")
    elif name not in file or not isinstance(file[name], kind):
        faults.append(f"there is no {'group' if kind is h5py.Group else 'dataset'} {name!r}")
    return len(faults) == before


def _strings(file: h5py.File, key: str, faults: list[str]) -> tuple[str, ...]:
    value = file.attrs.get(key)
    if value is None or np.ndim(value) != 1 or len(value) < 2:
        faults.append(f"attribute {key} must list two names or more")
        return ()
    try:
        return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in value)
    except UnicodeDecodeError:
        faults.append(f"attribute {key} holds bytes that are no text in UTF-8")
        return ()


def _per_channel(file: h5py.File, key: str, channels: int, faults: list[str]) -> tuple[float, ...]:
    try:
        value = np.asarray(file.attrs.get(key), np.float64)
    except (TypeError, ValueError):
        value = np.empty(0)
    if channels and (value.shape != (channels,) or not np.isfinite(value).all()):
        faults.append(f"attribute {key} must hold {channels} finite numbers, one per channel")
        return ()
    return tuple(float(v) for v in value.reshape(-1))
