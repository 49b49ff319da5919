"""What must hold in a dataset file, split by split; faults are collected, so that all are reported together."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..core.environment import no_room
from ..core.hdf5 import leads_outside, missing
from .checksums import SUFFIX, grid_of_chunks
from .coarse import coarse_shape, misfit
from .prepare.image_transform import Preparation, from_json

DTYPES = ("uint8", "int8", "uint16", "int16", "float32")
"""Dtypes of pixels; all are exact in float32, in which CNNs compute."""


def check_split(
    file: h5py.File, split: str, num_classes: int, faults: list[str]
) -> tuple[h5py.Dataset, npt.NDArray[np.int64]] | None:
    """Images and labels of a split; None where they are not as they must be."""
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
        faults.append(f"{split}/images holds {images.shape[0]} samples, but {split}/labels holds {labels.shape[0]}")
    elif labels.shape[0] < 2:
        faults.append(f"split {split!r} has too few samples ({labels.shape[0]}); it needs at least 2")
    if len(faults) > before:
        return None
    if fault := no_room(3 * 8 * len(labels)):
        faults.append(f"{split}/labels holds {len(labels):,} labels: {fault}")
        return None
    values = labels[:].astype(np.int64)
    invalid = np.flatnonzero((values < 0) | (values >= num_classes))
    if invalid.size and num_classes:
        faults.append(
            f"{split}/labels[{invalid[0]}] is {values[invalid[0]]}, out of range for {num_classes} classes "
            f"(0 to {num_classes - 1}); {invalid.size} such labels"
        )
        return None
    return images, values


def check_coarse(file: h5py.File, split: str, images: h5py.Dataset, faults: list[str]) -> tuple[int, ...] | None:
    """The block of a split's coarse images; None without any."""
    name = f"{split}/coarse"
    if file.get(name, getclass=True, getlink=True) is None or not _is_there(file, name, h5py.Dataset, faults):
        return None
    coarse = file[name]
    value = np.asarray(attribute_of(coarse, "block"))
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


def check_checksums(file: h5py.File, split: str, faults: list[str]) -> None:
    """Checksums, where there are any, must fit the chunks; a file with a fingerprint must have them."""
    for name in ("images", "coarse"):
        path = f"{split}/{name}{SUFFIX}"
        pixels = file.get(f"{split}/{name}")
        if not isinstance(pixels, h5py.Dataset):
            continue
        if file.get(path, getclass=True, getlink=True) is None:
            if "fingerprint" in file.attrs:
                faults.append(f"there is no dataset {path!r}, but a fingerprint; remove both if you changed the file")
        elif _is_there(file, path, h5py.Dataset, faults):
            grid = None if pixels.chunks is None else grid_of_chunks(pixels.shape, pixels.chunks)
            if (file[path].shape, file[path].dtype) != (grid, np.uint64):
                faults.append(
                    f"{path} is {file[path].dtype} of shape {file[path].shape}; uint64 of shape {grid}, one for each "
                    f"chunk of {split}/{name}, is needed; remove it if you changed the file"
                )


def _is_there(file: h5py.File, name: str, kind: type[h5py.HLObject], faults: list[str]) -> bool:
    """Whether the file itself holds a group or dataset, all of it."""
    before = len(faults)
    if fault := leads_outside(file, name):
        faults.append(f"{name} {fault}; a dataset file must contain all of its data")
    elif name not in file or not isinstance(file[name], kind):
        faults.append(f"there is no {'group' if kind is h5py.Group else 'dataset'} {name!r}")
    elif isinstance(file[name], h5py.Dataset) and (fault := missing(file[name])):
        faults.append(f"{name} {fault}")
    return len(faults) == before


def strings_of(file: h5py.File, key: str, faults: list[str]) -> tuple[str, ...]:
    """An attribute that lists two strings or more; empty where it does not."""
    value = attribute_of(file, key)
    if value is None or np.ndim(value) != 1 or len(value) < 2:
        faults.append(f"attribute {key} must list at least two names")
        return ()
    try:
        return tuple(text_of(v) for v in value)
    except UnicodeDecodeError:
        faults.append(f"attribute {key} holds bytes that are not valid UTF-8")
        return ()


def attribute_of(owner: h5py.HLObject, key: str, default: Any = None) -> Any:
    """An attribute; ``attrs.get`` gives the default also for one that is damaged, this only for one that is missing."""
    return owner.attrs[key] if key in owner.attrs else default  # noqa: SIM401


def text_of(value: object) -> str:
    """A string as h5py gives it: of variable length as str, of fixed length as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def numbers_of(file: h5py.File, key: str, channels: int, faults: list[str]) -> tuple[float, ...]:
    """An attribute with a finite number for each channel; empty where it holds something else."""
    try:
        value = np.asarray(attribute_of(file, key), np.float64)
    except (TypeError, ValueError):
        value = np.empty(0)
    if channels and (value.shape != (channels,) or not np.isfinite(value).all()):
        faults.append(f"attribute {key} must hold {channels} finite numbers, one per channel")
        return ()
    return tuple(float(v) for v in value.reshape(-1))


def preparation_of(file: h5py.File, image_shape: tuple[int, ...] | None, faults: list[str]) -> Preparation | None:
    """The attribute ``preparation``; None where it is missing, or makes images of another shape."""
    value = attribute_of(file, "preparation")
    if value is None:
        return None
    try:
        preparation = from_json(text_of(value))
    except ValueError as error:
        faults.append(f"attribute preparation is not what `hpcdd prepare` writes ({str(error).splitlines()[0]})")
        return None
    if image_shape is not None and (made := preparation.image_shape) != image_shape:
        faults.append(f"attribute preparation makes images of shape {made}, but those in the file have {image_shape}")
        return None
    return preparation
