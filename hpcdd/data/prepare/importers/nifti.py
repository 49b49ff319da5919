"""NIfTI volumes in folders named after their classes (MosMedData and similar data sets)."""

from __future__ import annotations

import argparse
import gzip
import io
import math
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....core.environment import no_room
from ....core.errors import UserError
from ....decomposition.boxes import by
from ...split import Indices
from ...writing import LeaveOut, Split
from ..image_transform import MOST_VOXELS, VolumePreparation
from . import classes
from .archives import open_tree
from .decode_pool import DecodePool
from .file_tree import READ_ERRORS, check_size
from .image_source import ImageSource
from .resample import resample

SUMMARY = "NIfTI volumes (.nii, .nii.gz) in folders named after their classes"
EXAMPLES = ("hpcdd prepare nifti COVID19_1110/studies ct.h5 --window -1000 400 --size 64 128 128 --grid 2,2,2",)
SUFFIXES = (".nii", ".nii.gz")
WINDOW = (-1000.0, 400.0)
"""The default window in Hounsfield units: from air to soft tissue, in which lungs are looked at."""
_HEADER = 544
"""Bytes of the longest header of a NIfTI file, and of what says whether anything follows it."""
_CHUNK_BYTES = 1 << 20
"""Bytes of what follows the voxels that are read at once."""
_FLOATS = 4
"""Copies of a volume in float32 that are in memory at once: as read, turned, cut to the window, at another size."""
_DRAWN = 4096
"""Voxels of each volume of which percentiles are taken."""

Array = npt.NDArray[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of this kind."""
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="intensities that become 0 and 255 (default: -1000 400, lungs in Hounsfield units, and only for volumes "
        "that lie there)",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=3,
        metavar=("D", "H", "W"),
        help="voxels of every volume, from feet to head, front to back, right to left "
        "(default: all must be of one size)",
    )


def read(source: Path, pool: DecodePool, *, window: Sequence[float] | None, size: list[int] | None) -> ImageSource:
    """Reads ``CLASS/**/FILE`` or ``SPLIT/CLASS/**/FILE``, see :func:`hpcdd.data.prepare.importers.classes.read`.

    Args:
        source: the folder, or a tar or zip archive of it.
        pool: how files are read.
        window: intensities that become 0 and 255; default: :data:`WINDOW`, for volumes that it suits.
        size: (D, H, W) of every volume; default: as they are.

    Returns:
        uint8 volumes (n, 1, D, H, W), and the classes by alphabet.

    Raises:
        UserError: options that make no sense; classes as for images; here or later, a volume that is damaged or of
            another size than the first; without a window, also volumes that the default does not suit: at once where
            the first ones don't, else when all of a split have been read.
    """
    low, high = window or WINDOW
    if not -math.inf < low < high < math.inf:
        raise UserError(f"--window is {low:g} {high:g}; use two numbers, the lower one first")
    if size is not None and (min(size) < 1 or math.prod(size) > MOST_VOXELS):
        raise UserError(
            f"--size is {' '.join(map(str, size))}; use three positive numbers, at most {MOST_VOXELS:,} voxels"
        )
    intensities = Intensities((low, high))
    decoder = partial(decode, window=(low, high), size=size, intensities=intensities)
    imported = classes.read(open_tree(source), SUFFIXES, "volumes", decoder, pool)

    def check() -> None:
        if window is None and (fault := intensities.fault()):
            raise UserError(
                f"{source}: {fault} with the default window, which suits lungs in Hounsfield units: {intensities}; set "
                f"a window, such as --window {intensities.proposal()}, or --window {low:g} {high:g} if this is right"
            )

    def checked(part: Split) -> Split:
        def rows(indices: Indices, leave_out: LeaveOut) -> Iterator[Array]:
            yield from part.rows(indices, leave_out)
            check()

        return replace(part, rows=rows)

    check()  # of the first volume of each split
    intensities.clear()
    pool.reports.append(lambda: str(intensities))
    splits = {split: checked(part) for split, part in imported.splits.items()}
    _, depth, height, width = imported.splits["train"].image_shape
    shape = (depth, height, width)
    preparation = VolumePreparation(size=shape, resampled=size is not None, window=(low, high))
    return replace(imported, splits=splits, preparation=preparation)


class Intensities:
    """What volumes hold, compared with the window by which they become 0 to 255; added to by several threads.

    Args:
        window: intensities that become 0 and 255.
    """

    def __init__(self, window: tuple[float, float]) -> None:
        self.window = window
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forgets all volumes."""
        self._voxels = self._below = self._above = 0
        self._lowest, self._highest = math.inf, -math.inf
        self._drawn: list[Array] = []

    def add(self, volume: Array) -> None:
        """Counts the voxels of a volume in."""
        low, high = self.window
        below, above = int(np.count_nonzero(volume < low)), int(np.count_nonzero(volume > high))
        lowest, highest = float(volume.min()), float(volume.max())
        drawn = volume.reshape(-1)[np.random.default_rng(0).integers(0, volume.size, _DRAWN)]
        with self._lock:
            self._voxels += volume.size
            self._below, self._above = self._below + below, self._above + above
            self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)
            self._drawn.append(drawn)

    def fault(self) -> str | None:
        """Why the window does not suit the volumes; None if it does.

        It does not where more than half of the voxels become 255, or where 98 % of them lie in less than half of the
        256 grey levels. Voxels that become 0 are no fault: around a body there is air, and what scanners pad with.
        """
        if self._above > self._voxels / 2:
            return f"{self._above / self._voxels:.0%} of the voxels become 255"
        low, high = self.window
        levels = np.rint((np.clip(self._percentiles(), low, high) - low) * (255 / (high - low)))
        used = int(levels[1] - levels[0]) + 1
        return f"98% of the voxels lie in {used} of 256 grey levels" if used < 128 else None

    def proposal(self) -> str:
        """A window that holds 98 % of the voxels, as two words."""
        low, high = (f"{value:.4g}" for value in self._percentiles())
        return f"{low} {high}" if float(low) < float(high) else f"{self._lowest:.4g} {self._highest:.4g}"

    def __str__(self) -> str:
        if not self._voxels:
            return ""
        first, last = self._percentiles()
        return (
            f"intensities from {self._lowest:.4g} to {self._highest:.4g}, 98% of them from {first:.4g} to {last:.4g}; "
            f"{self._below / self._voxels:.1%} below and {self._above / self._voxels:.1%} above the window "
            f"{self.window[0]:g} to {self.window[1]:g}"
        )

    def _percentiles(self) -> Array:
        with self._lock:
            return np.asarray(np.percentile(np.concatenate(self._drawn), (1, 99)), np.float64)


def decode(
    content: bytes,
    where: str,
    window: tuple[float, float],
    size: Sequence[int] | None,
    intensities: Intensities | None = None,
) -> Array:
    """One volume as uint8 (1, D, H, W), turned as radiologists look at it: D from feet to head, H from front to back,
    W from the patient's right to the left.

    Args:
        content: of the file, gzip or not.
        where: the file in messages.
        window, size: see :func:`read`.
        intensities: to which those of the volume are added.

    Raises:
        UserError: no NIfTI file, damaged, or no volume of numbers.
    """
    try:
        volume = _voxels(content, where)
    except UserError:
        raise
    except Exception as error:  # nibabel raises any exception for a damaged header
        raise UserError(f"{where} can't be read as a NIfTI volume: {error}") from error
    if not np.isfinite(volume).all():
        raise UserError(f"{where} holds voxels that are NaN or infinite")
    if intensities is not None:
        intensities.add(volume)
    low, high = window
    scaled = (np.clip(volume, low, high) - np.float32(low)) * np.float32(255 / (high - low))
    return np.asarray(np.rint(resample(scaled, size or scaled.shape)), np.uint8)[np.newaxis]


def _voxels(content: bytes, where: str) -> Array:
    """Float32 (D, H, W); for errors that are not foreseen nibabel raises its own."""
    import nibabel

    nibabel.imageglobals.logger.disabled = True  # it would print what the exception says
    packed = content[:2] == b"\x1f\x8b"
    with gzip.open(io.BytesIO(content)) if packed else io.BytesIO(content) as stream:
        start = _read(stream, _HEADER, where)
        # The first number of a file is the size of its header, 540 in the second version of the format.
        second = start[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))
        kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = kind.header_class.from_fileobj(io.BytesIO(start))  # type: ignore[no-untyped-call]
        shape, dtype, offset = header.get_data_shape(), header.get_data_dtype(), int(header.get_data_offset())
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(f"{where} has the shape {tuple(shape)}; a volume has three axes")
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise UserError(f"{where} holds voxels of type {dtype}; integers or floats are needed")
        count = math.prod(int(n) for n in shape)
        needed = offset + count * dtype.itemsize
        if packed:  # a small file may hold any number of bytes
            check_size(needed, where)
        if (packed or len(content) >= needed) and (fault := no_room(needed + _FLOATS * 4 * count)):
            raise UserError(f"{where} claims {by(shape)} voxels: {fault}")
        content = start + _read(stream, needed - len(start), where)
        if offset < 0 or len(content) < needed:
            raise UserError(
                f"{where} is truncated: its header claims {by(shape)} voxels of {dtype.itemsize} bytes from byte "
                f"{offset}, but the file has {len(content)} bytes"
            )
        follows = 0
        while packed and (more := len(_read(stream, _CHUNK_BYTES, where))):  # to the end, where the checksum is
            check_size(needed + (follows := follows + more), where)
    stored = np.frombuffer(content, dtype, count, offset).reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by decode
        volume = stored.astype(np.float32) * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)
    # To right, front and head first: nibabel's order; then as the docstring of decode says.
    with np.errstate(all="ignore"):  # an affine of zeros: nibabel divides, and raises afterwards
        orientation = nibabel.io_orientation(header.get_best_affine())  # type: ignore[no-untyped-call]
    turned = nibabel.orientations.apply_orientation(volume, orientation)  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(turned[::-1, ::-1].transpose(2, 1, 0))


def _read(stream: gzip.GzipFile | io.BytesIO, size: int, where: str) -> bytes:
    """Up to ``size`` bytes."""
    try:
        return stream.read(max(0, size))
    except READ_ERRORS as error:
        raise UserError(f"{where} is damaged: {error}") from error
