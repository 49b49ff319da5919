"""NumPy arrays by name: an .npz archive (MedMNIST files as they come) or a folder of .npy files; never any pickle."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ....core.errors import UserError
from ....decomposition.boxes import by
from ...split import Indices
from ...structure import DTYPES
from ...writing import Split
from .file_tree import MOST_BYTES, READ_ERRORS
from .image_source import ImageSource
from .row_stream import StreamedArray
from .splits import by_split

LAYOUTS = ("NHW", "NHWC", "NCHW", "NDHW", "NDHWC", "NCDHW")
_PAIRS = (
    ("{split}_images", "{split}_labels"),
    ("x_{split}", "y_{split}"),
    ("X_{split}", "y_{split}"),
    ("images", "labels"),
    ("x", "y"),
    ("X", "y"),
)

Array = npt.NDArray[Any]
_Named = tuple[str, tuple[str, str]]
"""A split, and the names of its images and labels."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of both kinds."""
    for what in ("images", "labels"):
        parser.add_argument(
            f"--{what}",
            metavar="NAME",
            help=f"array of {what}; {{split}} in it stands for train, validation (or val, valid) and test "
            f"(default: {{split}}_{what} or another usual pair of names)",
        )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="axes of the images (default: the last axis is channels if it is 1 or 3 long, else the second if that is; "
        "of five axes the second is channels in any case). Channels of other numbers are read by NHWC, NCHW, ...",
    )


def read_arrays(
    source: Path, arrays: Mapping[str, StreamedArray], images: str | None, labels: str | None, layout: str | None
) -> ImageSource:
    """Splits from arrays by name.

    Args:
        source: for messages.
        arrays: those that are there.
        images, labels: patterns of names; default: the first usual pair that is there.
        layout: one of :data:`LAYOUTS`; default: inferred from the lengths of the axes.

    Returns:
        Images (n, C, *spatial) of the stored dtype; float64 and float16 become float32, bool becomes uint8.

    Raises:
        UserError: no such arrays, or arrays that do not fit together.
    """
    if (images is None) != (labels is None):
        raise UserError("give both --images and --labels, or neither")
    pairs = _PAIRS if images is None or labels is None else ((images, labels),)
    for pair in pairs:
        if names := dict(_present(pair, arrays, source)):
            break
    else:
        wanted = " nor ".join(f"{a} and {b}" for a, b in pairs)
        have = ", ".join(sorted(arrays)) or "none"
        raise UserError(f"{source} holds neither {wanted}; its arrays are {have}: use --images NAME --labels NAME")
    if "train" not in names:
        raise UserError(f"{source} holds the splits {', '.join(names)}, but no training split")
    splits = {split: _split(arrays[a], arrays[b], layout) for split, (a, b) in names.items()}
    kinds = {(part.image_shape, part.dtype) for part in splits.values()}
    if len(kinds) > 1:
        raise UserError(f"{source}: images differ between splits: {', '.join(map(str, sorted(kinds)))}")
    notes = [_note_on_axes(arrays[names["train"][0]], layout, splits["train"].image_shape)]
    if unused := sorted(arrays.keys() - {name for pair in names.values() for name in pair}):
        notes.append(f"not used: arrays {', '.join(unused)}")
    return ImageSource(splits, (), notes=notes)


def _note_on_axes(images: StreamedArray, layout: str | None, image_shape: tuple[int, ...]) -> str:
    """How the axes were read, and the alternatives where that was a guess."""
    channels, *spatial = image_shape
    kind = "images" if len(spatial) == 2 else "volumes"
    note = f"array {images.shape} read as {layout or _layout(images)}: {kind} of {by(spatial)}, channels: {channels}"
    if layout is None and len(spatial) == 3 and images.shape[-1] not in (1, 3) and images.shape[1] not in (1, 3):
        other = "NHWC or NCHW" if len(images.shape) == 4 else "NDHWC"
        note += f"; if one of these axes holds the channels, use --layout {other}"
    return note


def _present(pair: tuple[str, str], arrays: Mapping[str, StreamedArray], source: Path) -> Iterator[_Named]:
    images, labels = pair
    if "{split}" not in images + labels:
        if images in arrays and labels in arrays:
            yield "train", pair
        return
    if "{split}" not in images or "{split}" not in labels:
        raise UserError(f"--images {images} and --labels {labels}: write {{split}} in both, or in neither")
    named = re.compile("(.*)".join(map(re.escape, images.split("{split}", 1))))
    spellings = [
        match[1] for match in map(named.fullmatch, arrays) if match and labels.replace("{split}", match[1]) in arrays
    ]
    for split, spelling in by_split(spellings, str(source)).items():
        yield split, (images.replace("{split}", spelling), labels.replace("{split}", spelling))


def _layout(images: StreamedArray) -> str:
    shape = images.shape
    if len(shape) == 3:
        return "NHW"
    if len(shape) in (4, 5):
        spatial = "HW" if len(shape) == 4 else "DHW"
        if shape[-1] in (1, 3):
            return f"N{spatial}C"
        if shape[1] in (1, 3) or len(shape) == 5:
            return f"NC{spatial}"
        return "NDHW"
    raise UserError(f"{images.where} has the shape {shape}; images have three to five axes, see --layout")


def _split(images: StreamedArray, labels: StreamedArray, layout: str | None) -> Split:
    axes = layout or _layout(images)
    if len(axes) != len(images.shape):
        raise UserError(f"--layout is {axes}, but {images.where} has the shape {images.shape}")
    stored = images.dtype.newbyteorder("=")
    dtype = {"float64": "float32", "float16": "float32", "bool": "uint8"}.get(stored.name, stored.name)
    if dtype not in DTYPES:
        raise UserError(f"{images.where} is {stored}; convert it to one of {', '.join(DTYPES)}")
    if labels.dtype.kind not in "iu" or len(labels.shape) not in (1, 2) or labels.shape[1:] not in ((), (1,)):
        raise UserError(
            f"{labels.where} is {labels.dtype} of shape {labels.shape}; it must hold one integer per image, in shape "
            "(n,) or (n, 1)"
        )
    if images.shape[0] != labels.shape[0]:
        raise UserError(
            f"{images.where} holds {images.shape[0]} images, but {labels.where} holds {labels.shape[0]} labels"
        )
    channel = axes.find("C")

    def channels_first(block: Array) -> Array:
        moved = block[:, np.newaxis] if channel < 0 else np.moveaxis(block, channel, 1)
        return np.ascontiguousarray(moved, dtype)

    def rows(indices: Indices, _: object) -> Iterable[Array]:
        return map(channels_first, images.rows(indices))

    spatial = [n for axis, n in zip(axes, images.shape, strict=True) if axis not in "NC"]
    shape = (1 if channel < 0 else images.shape[channel], *spatial)
    return Split(labels.read_all().reshape(-1).astype(np.int64), shape, dtype, rows)


def open_npz(source: Path) -> dict[str, StreamedArray]:
    """The arrays of an .npz archive by name.

    Raises:
        UserError: it is no such archive, or an array is damaged or made of Python objects.
    """
    if source.is_dir():
        raise UserError(f"{source} is a folder; name an .npz file, or read a folder of .npy files with `prepare npy`")
    try:
        with zipfile.ZipFile(source) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
    except FileNotFoundError as error:
        raise UserError(f"{source} is not there; name an .npz file") from error
    except READ_ERRORS as error:
        raise UserError(f"{source} is not an .npz archive that can be read: {error}") from error
    return {
        name.removesuffix(".npy"): open_array(partial(_member, source, name), f"{source}: {name}") for name in names
    }


@contextmanager
def _member(source: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(source) as archive, archive.open(name) as stream:
        yield stream


def open_npy(source: Path) -> dict[str, StreamedArray]:
    """The arrays of a folder of .npy files by name.

    Raises:
        UserError: it is no folder, or an array is damaged or made of Python objects.
    """
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; name one with files such as train_images.npy and train_labels.npy")
    return {path.stem: open_array(partial(path.open, "rb"), str(path)) for path in sorted(source.glob("*.npy"))}


def open_array(opener: Any, where: str) -> StreamedArray:
    """An array in NumPy's format, of which only the header is read.

    Args:
        opener: opens the stream, as for :class:`StreamedArray`.
        where: the file in messages.

    Raises:
        UserError: it is damaged, made of Python objects (a pickle, which could run code), or column by column.
    """
    try:
        with opener() as stream:
            version = np.lib.format.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                raise UserError(f"{where} is of version {version} of NumPy's format; save it as version 1 or 2")
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(stream)
            offset = stream.tell()
    except UserError:
        raise
    except Exception as error:  # the header is a Python expression: a damaged one trips NumPy's parser anyhow
        raise UserError(f"{where} is not an array in NumPy's format: {error}") from error
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None or dtype.itemsize == 0:
        raise UserError(
            f"{where} holds {dtype}, not numbers; pickled objects are never loaded, so save it as plain numbers"
        )
    if any(not 0 <= n <= MOST_BYTES for n in shape) or not shape:
        raise UserError(f"{where} claims the shape {shape}, which is not plausible")
    if fortran and len(shape) > 1:
        raise UserError(f"{where} is stored column by column; save it again with numpy.ascontiguousarray")
    return StreamedArray(opener, where, offset, shape, dtype)
