"""IDX, the format of the MNIST family (http://yann.lecun.com/exdb/mnist/): big-endian header, then raw bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from ..write import Split

_PREFIX = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08


def read(source: Path) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Reads ``{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`` from a folder.

    Args:
        source: the folder.

    Returns:
        Splits ``train`` and ``test`` with uint8 images (n, 1, H, W); no class names, the format has none.

    Raises:
        UserError: a file is missing, damaged or of another format; the message names it.
    """
    if not source.is_dir():
        raise UserError(
            f"{source} is not a folder; name the one that holds train-images-idx3-ubyte and its three siblings"
        )
    splits = {}
    for split, prefix in _PREFIX.items():
        images_path = _find(source, f"{prefix}-images", 3)
        labels_path = _find(source, f"{prefix}-labels", 1)
        images, labels = read_array(images_path, 3), read_array(labels_path, 1)
        if len(images) != len(labels):
            raise UserError(f"{images_path} holds {len(images)} images, but {labels_path} {len(labels)} labels")
        splits[split] = Split.from_array(images[:, np.newaxis], labels)
    return splits, ()


def read_array(path: Path, axes: int) -> npt.NDArray[Any]:
    """One IDX file of unsigned bytes, gzip or not, as a uint8 array with ``axes`` axes.

    Raises:
        UserError: not such a file, or its length does not fit its header.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UserError(
            f"{path} is not an IDX file: it starts with {content[:4].hex(' ') or 'nothing'}, not with 00 00"
        )
    if content[2] != _UNSIGNED_BYTE or content[3] != axes:
        raise UserError(
            f"{path} holds type 0x{content[2]:02x} with {content[3]} axes; 0x08 (unsigned byte) with {axes} is needed"
        )
    header = 4 + 4 * axes
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    if len(content) >= header and 0 in shape:
        raise UserError(f"{path} is empty: its header announces {' x '.join(map(str, shape))} bytes")
    if len(content) - header != math.prod(shape) or len(content) < header:
        raise UserError(
            f"{path} is damaged: its header announces {' x '.join(map(str, shape))} bytes, "
            f"but {max(0, len(content) - header)} follow"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _find(folder: Path, stem: str, axes: int) -> Path:
    names = [f"{stem}{dot}idx{axes}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds neither {' nor '.join(names)}")
