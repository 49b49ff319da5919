"""CIFAR-10 and CIFAR-100 as their publisher ships them: binary or python archive, or the folder extracted from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....core.errors import UserError
from ...split import Indices
from ...writing import LeaveOut, Split
from . import cifar_pickle
from .archives import open_tree
from .file_tree import ArchiveReader
from .image_source import ImageSource

Array = npt.NDArray[Any]
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Release:
    """The files of one data set in one of its two archives.

    Attributes:
        batches: their names by split.
        labels: bytes of labels before the pixels of a record, and which of them is meant (binary); or the key of the
            list of labels (python).
        meta: the file with the names of the classes.
        names: their key in it (python); None: one name a line (binary).
    """

    batches: Mapping[str, Sequence[str]]
    labels: tuple[int, int] | str
    meta: str
    names: str | None = None


def read(source: Path, name: str, releases: Sequence[Release]) -> ImageSource:
    """Reads the batches of whichever release the source holds.

    Args:
        source: the archive, or the folder.
        name: of the data set.
        releases: what may be there.

    Returns:
        Splits ``train`` and ``test`` of uint8 images (n, 3, 32, 32) in the publisher's order, and the names of the
        classes.

    Raises:
        UserError: the files of no release are there, or one is damaged.
    """
    tree = open_tree(source)
    where = tree.by_name()
    for release in releases:
        wanted = [*(file for files in release.batches.values() for file in files), release.meta]
        missing = [file for file in wanted if file not in where]
        if not missing:
            break
        if len(missing) < len(wanted) - 1:
            raise UserError(f"{source} lacks {', '.join(missing)} of {name}; download it again")
    else:
        raise UserError(
            f"{source} is not {name}: it contains the files of no release, such as "
            f"{' or '.join(release.batches['train'][0] for release in releases)}"
        )
    names = _names(tree, where[release.meta], release)
    splits = {}
    for split, files in release.batches.items():
        batches = [where[file] for file in files]
        splits[split] = _split(tree, batches, release, len(names))
    return ImageSource(splits, names, name)


def _names(tree: ArchiveReader, file: str, release: Release) -> tuple[str, ...]:
    content, where = tree.read(file), tree.where(file)
    if release.names is None:
        names = [line.strip() for line in content.decode("utf-8", "replace").splitlines() if line.strip()]
    else:
        listed = cifar_pickle.load(content, where).get(release.names)
        listed = listed if isinstance(listed, list) else []
        names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in listed]
    if len(names) < 2:
        raise UserError(f"{where} is damaged: it names {len(names)} classes")
    return tuple(names)


def _split(tree: ArchiveReader, batches: Sequence[str], release: Release, num_classes: int) -> Split:
    def parse(content: bytes, where: str) -> tuple[Array, Array]:
        images, labels = (_python if isinstance(release.labels, str) else _binary)(content, where, release)
        if (top := int(labels.max())) >= num_classes or labels.min() < 0:
            raise UserError(f"{where} is damaged: it holds the label {top}, but there are {num_classes} classes")
        return images, labels

    labels = [parse(tree.read(file), tree.where(file))[1] for file in batches]
    starts = np.cumsum([0, *map(len, labels)])

    def rows(indices: Indices, _: LeaveOut) -> Iterator[Array]:
        for file, first, end in zip(batches, starts[:-1], starts[1:], strict=True):
            inside = indices[np.searchsorted(indices, first) : np.searchsorted(indices, end)]
            if inside.size:
                yield parse(tree.read(file), tree.where(file))[0][inside - first]

    return Split(np.concatenate(labels), _SHAPE, "uint8", rows)


def _binary(content: bytes, where: str, release: Release) -> tuple[Array, Array]:
    """Records of some labels, a byte each, and the pixels."""
    assert not isinstance(release.labels, str)
    before, which = release.labels
    size = before + _PIXELS
    if not content or len(content) % size:
        raise UserError(
            f"{where} is damaged: {len(content):,} bytes are not a multiple of the {size} bytes of an image"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, before:].reshape(-1, *_SHAPE), records[:, which].astype(np.int64)


def _python(content: bytes, where: str, release: Release) -> tuple[Array, Array]:
    batch = cifar_pickle.load(content, where)
    data, listed = batch.get("data"), batch.get(str(release.labels))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] not in ((_PIXELS,), _SHAPE):
        data = np.empty(0)
    if not len(data):
        raise UserError(f"{where} is damaged: it holds no array 'data' of bytes, of shape (n, {_PIXELS})")
    if isinstance(listed, np.ndarray) and listed.ndim == 1:
        listed = listed.tolist()
    if not isinstance(listed, list) or len(listed) != len(data) or not all(n in range(256) for n in listed):
        raise UserError(f"{where} is damaged: its {release.labels!r} are not {len(data)} small integers")
    return data.reshape(-1, *_SHAPE), np.array(listed, np.int64)
