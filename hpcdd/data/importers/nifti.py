"""NIfTI volumes in folders named after their classes (MosMedData and alike)."""

from __future__ import annotations

import argparse
import gzip
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...decomposition import by
from ...errors import UserError
from ..preparation import VolumePreparation
from . import classes
from .collection import Imported
from .resample import resample
from .tree import MOST_BYTES, READ_ERRORS, check_size, open_tree
from .work import Work

SUMMARY = "NIfTI volumes (.nii, .nii.gz) in folders named after their classes"
EXAMPLES = ("hpcdd prepare nifti COVID19_1110/studies ct.h5 --window -1000 400 --size 64 128 128 --grid 2,2,2",)
SUFFIXES = (".nii", ".nii.gz")
WINDOW = (-1000.0, 400.0)
"""The default window in Hounsfield units: from air to soft tissue, in which lungs are looked at."""

Array = npt.NDArray[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of this kind."""
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        default=WINDOW,
        help="intensities that become 0 and 255 (default: -1000 400, lungs in Hounsfield units)",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=3,
        metavar=("D", "H", "W"),
        help="voxels of every volume, from feet to head, front to back, right to left "
        "(default: all must be of one size)",
    )


def read(source: Path, work: Work, *, window: tuple[float, float], size: list[int] | None) -> Imported:
    """Reads ``CLASS/FILE``, or ``{train,validation,test}/CLASS/FILE``.

    Args:
        source: the folder, or a tar or zip archive of it.
        work: how files are read.
        window: intensities that become 0 and 255.
        size: (D, H, W) of every volume; default: as they are.

    Returns:
        uint8 volumes (n, 1, D, H, W), and the classes by alphabet.

    Raises:
        UserError: options that make no sense; classes as for images; here or later, a volume that is damaged or of
            another size than the first.
    """
    low, high = window
    if not -math.inf < low < high < math.inf:
        raise UserError(f"--window is {low:g} {high:g}; use two numbers, the lower one first")
    if size is not None and (min(size) < 1 or math.prod(size) > MOST_BYTES):
        raise UserError(
            f"--size is {' '.join(map(str, size))}; use three positive numbers, at most {MOST_BYTES:,} voxels"
        )
    decoder = partial(decode, window=(low, high), size=size)
    imported = classes.read(open_tree(source), SUFFIXES, "volumes", decoder, work)
    _, depth, height, width = imported.splits["train"].image_shape
    shape = (depth, height, width)
    preparation = VolumePreparation(size=shape, resampled=size is not None, window=(low, high))
    return replace(imported, preparation=preparation)


def decode(content: bytes, where: str, window: tuple[float, float], size: Sequence[int] | None) -> Array:
    """One volume as uint8 (1, D, H, W), turned as radiologists look at it: D from feet to head, H from front to back,
    W from the patient's right to the left.

    Args:
        content: of the file, gzip or not.
        where: the file in messages.
        window, size: see :func:`read`.

    Raises:
        UserError: no NIfTI file, damaged, or no volume of numbers.
    """
    try:
        volume = _voxels(_unpacked(content, where), where)
    except UserError:
        raise
    except Exception as error:  # nibabel raises whatever a damaged header makes it stumble over
        raise UserError(f"{where} is not a NIfTI volume that can be read: {error}") from error
    if not np.isfinite(volume).all():
        raise UserError(f"{where} holds voxels that are NaN or infinite")
    low, high = window
    scaled = (np.clip(volume, low, high) - np.float32(low)) * np.float32(255 / (high - low))
    return np.asarray(np.rint(resample(scaled, size or scaled.shape)), np.uint8)[np.newaxis]


def _unpacked(content: bytes, where: str) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            plain = stream.read(MOST_BYTES + 1)
    except READ_ERRORS as error:
        raise UserError(f"{where} is damaged: {error}") from error
    check_size(len(plain), where)
    return plain


def _voxels(content: bytes, where: str) -> Array:
    """Float32 (D, H, W); for errors that are not foreseen nibabel raises its own."""
    import nibabel

    nibabel.imageglobals.logger.disabled = True  # it would print what the exception says
    # The first number of a file is the size of its header, 540 in the second version of the format.
    second = content[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = kind.header_class.from_fileobj(io.BytesIO(content))  # type: ignore[no-untyped-call]
    shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header.get_data_offset())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"{where} has the shape {tuple(shape)}; a volume has three axes")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UserError(f"{where} holds voxels of type {dtype}; integers or floats are needed")
    needed = math.prod(int(n) for n in shape) * dtype.itemsize
    if offset < 0 or len(content) - offset < needed:
        raise UserError(
            f"{where} is truncated: its header announces {by(shape)} voxels of {dtype.itemsize} "
            f"bytes from byte {offset}, but the file has {len(content)} bytes"
        )
    stored = np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by decode
        volume = stored.astype(np.float32) * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)
    # To right, front and head first: nibabel's order; then as the docstring of decode says.
    with np.errstate(all="ignore"):  # an affine of zeros: nibabel divides, and raises afterwards
        orientation = nibabel.io_orientation(header.get_best_affine())  # type: ignore[no-untyped-call]
    turned = nibabel.orientations.apply_orientation(volume, orientation)  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(turned[::-1, ::-1].transpose(2, 1, 0))
