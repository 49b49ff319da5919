"""Writing a dataset file: streamed split by split, statistics on the way, under a temporary name until it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..core import interruption
from ..core.errors import UserError
from ..core.files import atomic_write, readable
from ..core.hdf5 import new_hdf5
from .checksums import SUFFIX, checksums_of
from .chunks import rows_of_chunk
from .coarse import average, coarse_shape, misfit
from .format import FORMAT, DatasetInfo, described, inspect
from .prepare.image_transform import Preparation
from .structure import DTYPES

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
LeaveOut = Callable[[int], None]
"""Called with the position of a row that is left out, because its file is bad."""
LIBVER = ("v110", "v110")
"""The version of HDF5's format: the first whose structure has checksums throughout, so that most programs read it."""
_STATISTICS_BYTES = 1 << 19
"""Bytes of pixels whose statistics are taken at once: their copy in float64 stays small."""


@dataclass(frozen=True)
class Split:
    """Labelled images of a source, of which any rows can be read, in blocks, without holding them all.

    Attributes:
        labels: int64 (n,).
        image_shape: (C, *spatial).
        dtype: of the pixels.
        rows: from ascending indices (m,) to blocks (any number of rows, C, *spatial) of these images in this order;
            the second argument is called with the positions, 0 to m - 1, that are left out.
    """

    labels: Indices
    image_shape: tuple[int, ...]
    dtype: str
    rows: Callable[[Indices, LeaveOut], Iterable[Array]]

    @classmethod
    def from_array(cls, images: Array, labels: Array) -> Split:
        """Images (n, C, *spatial) in memory, labels (n,)."""
        return cls(labels.astype(np.int64), images.shape[1:], str(images.dtype), lambda rows, _: [images[rows]])

    def select(self, indices: Indices) -> Split:
        """Some of the images, by ascending indices (m,)."""
        return replace(
            self, labels=self.labels[indices], rows=lambda rows, leave_out: self.rows(indices[rows], leave_out)
        )


@dataclass
class _Moments:
    """Mean and standard deviation per channel in one pass.

    Sums are of differences to the channel's first pixel: a constant channel has standard deviation 0 exactly, and a
    mean that is large compared with the standard deviation causes no cancellation.
    """

    channels: int
    count: int = 0
    shift: Array | None = None
    total: Array = field(init=False)
    squares: Array = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.channels)
        self.squares = np.zeros(self.channels)

    def add(self, images: Array) -> None:
        pixels = images.astype(np.float64)
        if self.shift is None:
            self.shift = pixels[0].reshape(self.channels, -1)[:, 0].copy().reshape(-1, *[1] * (images.ndim - 2))
        pixels -= self.shift
        axes = (0, *range(2, images.ndim))
        self.count += pixels.size // self.channels
        self.total += pixels.sum(axis=axes)
        self.squares += np.square(pixels).sum(axis=axes)

    def mean(self) -> Array:
        return np.asarray(self.total / self.count + np.ravel(np.asarray(self.shift)))

    def std(self) -> Array:
        return np.asarray(np.sqrt(np.maximum(self.squares / self.count - (self.total / self.count) ** 2, 0.0)))


def write_dataset(
    path: Path,
    splits: Mapping[str, Split],
    *,
    name: str,
    class_names: Sequence[str],
    source: str = "",
    licence: str = "",
    command: str = "",
    preparation: Preparation | None = None,
    compression: int = 4,
    coarse: Sequence[int] | None = None,
    chunk: Sequence[int] | None = None,
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> DatasetInfo:
    """Writes a dataset file (see :mod:`hpcdd.data.format`); nothing stands at ``path`` before it is whole.

    Args:
        path: the file to make; one that is there is replaced at the end.
        splits: ``train``, ``test`` and optionally ``validation``.
        name, class_names, source, licence, command: recorded as attributes.
        preparation: how files became the images, if each was a file.
        compression: gzip level, 0 to 9; 0 stores the pixels as they are.
        coarse: block of pixels along each spatial axis; the images averaged in such blocks are stored as well.
        chunk: pixels along each spatial axis that are stored together (see :mod:`hpcdd.data.chunks`); default: whole
            images.
        report: called with a line for everything that a user should know of the pixels.
        progress: called with the numbers of images that have been written.

    Returns:
        What the file says of itself.

    Raises:
        UserError: pixels of a dtype that the format does not know, pixels that are all equal, labels that training
            would refuse, a block that does not fit, or a path that can't be written.
    """
    check_out(path)
    if len(set(class_names)) < len(class_names):
        twice = next(name for name in class_names if list(class_names).count(name) > 1)
        raise UserError(f"{path} was not written: two classes have the name {twice!r}; name them with --class-names")
    _check_classes(path, np.asarray(splits["train"].labels), class_names)
    attributes = {"name": name, "source": source, "licence": licence, "command": command}
    if preparation is not None:
        attributes["preparation"] = preparation.to_json()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            with new_hdf5(temporary, libver=LIBVER) as file:
                file.attrs["hpcdd_format"] = FORMAT
                file.attrs["class_names"] = _fixed(class_names)
                file.attrs.update({key: _fixed([value])[0] for key, value in attributes.items()})
                for split_name, split in splits.items():
                    if split.dtype not in DTYPES:
                        raise UserError(f"images of dtype {split.dtype} can't be stored; use {', '.join(DTYPES)}")
                    if coarse is not None and (fault := misfit(coarse, split.image_shape[1:])):
                        raise UserError(f"{path} was not written: {fault}")
                    group = file.create_group(split_name)
                    moments, left_out = _write_split(group, split, compression, coarse, chunk, progress)
                    if split_name == "train":
                        _check_classes(path, file["train/labels"][:], class_names, left_out)
                        file.attrs["mean"], file.attrs["std"] = _checked(moments, path, report)
                file.attrs["fingerprint"] = np.bytes_(_accepted(path, described, temporary, file).fingerprint)
            info = replace(_accepted(path, inspect, temporary), path=path.absolute())
    except OSError as error:  # a full disk, for one
        raise UserError(f"{path} can't be written: {error}") from error
    return info


def check_out(path: Path) -> None:
    """Checks the name of a file that is to be written; makes nothing, for its folder may be part of what is read.

    Raises:
        UserError: there is a folder of that name, or its own folder can't be made or written to.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write")
    try:
        there = next(folder for folder in path.absolute().parents if folder.exists())
    except OSError as error:  # too long a name, for one
        raise UserError(f"{path} can't be written: {error}") from error
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "you have no permission to write there" if there.is_dir() else "it is a file"
        raise UserError(f"{path} can't be written in {there}: {why}; name another folder")


def _checked(moments: _Moments, path: Path, report: Callable[[str], None]) -> tuple[Array, Array]:
    """Mean and standard deviation per channel, by which images can be normalised; 1 for a channel that is constant."""
    mean, std = moments.mean(), moments.std()
    if not np.isfinite([mean, std]).all():
        raise UserError(f"{path} was not written: the training images hold NaN or infinite pixels")
    if not (std > 0).any():
        raise UserError(
            f"{path} was not written: all pixels of the training images are equal ({mean.tolist()} by channel); "
            "nothing can be learned from them"
        )
    for channel in np.flatnonzero(std == 0):
        report(
            f"channel {channel} is {mean[channel]:g} in all training images; its standard deviation is set to 1, so "
            "the normalised channel is 0"
        )
    return mean, np.where(std > 0, std, 1.0)


def _check_classes(path: Path, labels: Array, class_names: Sequence[str], left_out: int = 0) -> None:
    """Refuses classes that no network could learn.

    Args:
        path: of the file, in the message.
        labels: of the training samples; where one is no class, that is reported when the file is inspected.
        class_names: K names.
        left_out: bad files among the training samples that are not in the file.
    """
    present = set(np.unique(labels).tolist())
    missing = [name for number, name in enumerate(class_names) if number not in present]
    if not missing or not present <= set(range(len(class_names))):
        return
    some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    after = f" after {left_out} bad files were left out" if left_out else ""
    raise UserError(
        f"{path} was not written: {len(missing)} of {len(class_names)} classes have no training samples{after}: "
        f"{some}; no model can learn them, so add samples or remove these classes from all splits of the source"
    )


def _accepted(path: Path, read: Callable[..., DatasetInfo], temporary: Path, *file: h5py.File) -> DatasetInfo:
    """What training would refuse is refused here, before it gets its name."""
    try:
        return read(temporary, *file)
    except UserError as error:
        raise UserError(f"{path} was not written: {str(error).replace(f'data.file: {temporary}: ', '')}") from error


def _fixed(texts: Sequence[str]) -> Array:
    """Strings of one fixed length: those of variable length lie where HDF5 has no checksum."""
    encoded = [readable(text).encode() for text in texts]
    return np.array(encoded, h5py.string_dtype("utf-8", max(1, *map(len, encoded))))


def _write_split(
    group: h5py.Group,
    split: Split,
    compression: int,
    coarse: Sequence[int] | None,
    chunk: Sequence[int] | None,
    progress: Callable[[int], None],
) -> tuple[_Moments, int]:
    """Writes a split; gives the statistics of its pixels, and the number of images that were left out."""
    n = len(split.labels)
    images = ImageWriter.create(group, "images", n, split.image_shape, split.dtype, compression, chunk)
    averages = None
    if coarse is not None:
        shape = (split.image_shape[0], *coarse_shape(split.image_shape[1:], coarse))
        averages = ImageWriter.create(group, "coarse", n, shape, split.dtype, compression, None)
        averages.images.attrs["block"] = np.asarray(coarse, np.int64)
    step = max(1, _STATISTICS_BYTES // (int(np.prod(split.image_shape)) * np.dtype(split.dtype).itemsize))
    moments, left_out = _Moments(split.image_shape[0]), list[int]()
    for block in _regrouped(split.rows(np.arange(n), left_out.append), images.images.chunks[0]):
        interruption.point()
        images.append(block)
        for first in range(0, len(block), step):
            part = block[first : first + step]
            moments.add(part)
            if averages is not None and coarse is not None:
                averages.append(average(part, coarse))
        progress(len(block))
    start = images.finish()
    if start != n - len(left_out):
        raise AssertionError(f"the importer gave {start} images for {n} labels, {len(left_out)} left out")
    if start == 0:
        raise UserError(f"split {group.name[1:]!r} has no readable image")
    if averages is not None:
        averages.finish()
    group.create_dataset("labels", data=np.delete(np.asarray(split.labels, np.int64), left_out))
    return moments, len(left_out)


def _regrouped(blocks: Iterable[Array], rows: int) -> Iterator[Array]:
    """The same images in blocks of ``rows``, the last one smaller: each chunk is compressed and written once."""
    held: list[Array] = []
    count = 0
    for block in blocks:
        start = 0
        while start < len(block):
            held.append(block[start : start + rows - count])
            start += len(held[-1])
            count += len(held[-1])
            if count == rows:
                yield held[0] if len(held) == 1 else np.concatenate(held)
                held, count = [], 0
    if held:
        yield np.concatenate(held)


@dataclass
class ImageWriter:
    """Writes images into a dataset by whole rows of chunks, and with it the checksum of each chunk.

    Attributes:
        images: (n, C, *spatial), in chunks.
    """

    images: h5py.Dataset
    _written: int = 0
    _held: list[Array] = field(default_factory=list)
    _checksums: list[Array] = field(default_factory=list)

    @classmethod
    def create(
        cls,
        group: h5py.Group,
        name: str,
        n: int,
        shape: tuple[int, ...],
        dtype: str,
        compression: int,
        chunk: Sequence[int] | None,
    ) -> ImageWriter:
        """A dataset for n images of (C, *spatial); see :func:`write_dataset` for the rest."""
        spatial = shape[1:] if chunk is None else tuple(chunk)
        filters = {"compression": "gzip", "compression_opts": compression} if compression else {}
        chunks = (rows_of_chunk(n, shape, spatial, dtype), shape[0], *spatial)
        return cls(group.create_dataset(name, (n, *shape), dtype, chunks=chunks, **filters))

    def append(self, images: Array) -> None:
        """Images (any number, C, *spatial) that follow on those before."""
        rows = self.images.chunks[0]
        self._held.append(images)
        if (count := sum(map(len, self._held))) >= rows:
            held = np.concatenate(self._held) if len(self._held) > 1 else images
            whole = count - count % rows
            self._write(held[:whole])
            self._held = [held[whole:]] if count > whole else []

    def finish(self) -> int:
        """Writes what is left, and the checksums; the number of images, to which the dataset is cut."""
        if self._held:
            self._write(np.concatenate(self._held))
        self.images.resize(self._written, axis=0)
        if self._checksums:
            self.images.parent.create_dataset(self.images.name + SUFFIX, data=np.concatenate(self._checksums))
        return self._written

    def _write(self, images: Array) -> None:
        self.images[self._written : self._written + len(images)] = images
        self._checksums.append(checksums_of(np.ascontiguousarray(images, self.images.dtype), self.images.chunks))
        self._written += len(images)
