"""Where new images come from: files, folders and archives of them, dataset files; batch by batch, for one model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import UserError
from ..core.files import readable
from ..core.texts import printable
from ..data.format import EMBEDDED_NAME, DatasetInfo, inspect, resolve
from ..data.prepare.image_transform import VolumePreparation
from ..data.prepare.importers import image_files as pictures
from ..data.prepare.importers import nifti
from ..data.prepare.importers.archives import open_tree
from ..data.prepare.importers.decode_pool import DecodePool, Decoder
from ..data.prepare.importers.file_tree import ArchiveReader, Files
from ..data.reading import BoxReader
from ..decomposition.boxes import Box
from .classifier import Classifier

Array = npt.NDArray[Any]
_DATASETS = (".h5", ".hdf5")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
UNKNOWN = -1
"""The label of an image whose class is not known."""


@dataclass(frozen=True)
class Batch:
    """Images for the model.

    Attributes:
        names: n of them, as the user may find the image.
        images: (n, C, *spatial), as the data set stored its own.
        labels: int64 (n,), :data:`UNKNOWN` where the class is unknown or is not a class of the model.
    """

    names: list[str]
    images: Array
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Dataset:
    """A split of a dataset file."""

    info: DatasetInfo
    split: str

    def notes(self) -> list[str]:
        return []

    def batches(self, model: Classifier, _: DecodePool) -> Iterator[Batch]:
        reader, image = BoxReader(self.info.path), self.info.image_shape[1:]
        whole = Box((0,) * len(image), image)
        numbers = [model.classes.index(name) if name in model.classes else UNKNOWN for name in self.info.class_names]
        labels = np.array(numbers, np.int64)[self.info.labels[self.split]]
        for start in range(0, len(labels), model.rows):
            rows = np.arange(start, min(start + model.rows, len(labels)))
            (images,) = reader.read_rows(self.split, whole, [rows])
            names = [f"{self.info.path.name}:{self.split}[{row}]" for row in rows]
            yield Batch(names, images, labels[rows])


@dataclass(frozen=True)
class _Images:
    """Files of one image each."""

    tree: ArchiveReader
    files: Sequence[str]
    decode: Decoder
    report: Callable[[], str] = str

    def notes(self) -> list[str]:
        """What of the source is not used, a line each."""
        return [f"{readable(str(self.tree.path))}: {line}" for line in self.tree.unused.lines()]

    def batches(self, model: Classifier, work: DecodePool) -> Iterator[Batch]:
        work.reports.append(self.report)

        def fitting(content: bytes, where: str) -> Array:
            image = self.decode(content, where)
            if image.shape != model.image_shape:
                raise UserError(
                    f"{where} has the shape {image.shape}, but the model takes {model.image_shape} (channels first), "
                    "the shape of all files in its data set; resize it to that shape"
                )
            return image

        names: list[str] = []
        images: list[Array] = []
        for name, image in zip(
            self.files, work.images(self.tree, self.files, math.prod(model.image_shape), fitting), strict=True
        ):
            if isinstance(image, UserError):
                work.bad.append(str(image))
                continue
            names.append(name)
            images.append(image)
            if len(images) == model.rows:
                yield self._batch(names, images, model)
                names, images = [], []
        if images:
            yield self._batch(names, images, model)

    def _batch(self, names: list[str], images: list[Array], model: Classifier) -> Batch:
        labels = np.array([self._label(name, model.classes) for name in names], np.int64)
        return Batch([self.tree.where(name) for name in names], np.stack(images), labels)

    def _label(self, path: str, classes: Sequence[str]) -> int:
        """By the innermost folder that is named as a class, from the file up to what the user has named."""
        single_files = isinstance(self.tree, Files)
        folders = [Path(path).parent.name] if single_files else [self.tree.path.name, *Path(path).parent.parts]
        for folder in (printable(readable(name)) for name in reversed(folders)):
            if folder in classes:
                return classes.index(folder)
        return UNKNOWN


Source = _Dataset | _Images


def open_sources(paths: Sequence[str], model: Classifier, split: str) -> list[Source]:
    """Opens and checks all that the user has named, before anything is predicted.

    Args:
        paths: images, folders or archives of images, dataset files.
        model: the model that makes the predictions.
        split: of dataset files.

    Returns:
        The sources in the order of the paths; files that follow each other are one source.

    Raises:
        UserError: a path does not exist, or has no images for this model.
    """
    opened: list[Source] = []
    for path in paths:
        if path == EMBEDDED_NAME or path.lower().endswith(_DATASETS):
            opened.append(_dataset(resolve(path), model, split))
            continue
        decode, suffixes, report = _decoding(model, path)
        source = dataclasses.replace(_images(path, decode, suffixes), report=report)
        before = opened[-1] if opened else None
        if isinstance(source.tree, Files) and isinstance(before, _Images) and isinstance(before.tree, Files):
            files = (*before.files, *source.files)
            opened[-1] = _Images(Files(files), files, decode, report)
        else:
            opened.append(source)
    return opened


def _images(path: str, decode: Decoder, suffixes: Sequence[str]) -> _Images:
    try:
        if Path(path).is_dir():
            tree = open_tree(Path(path))
        elif not Path(path).exists():
            raise UserError(f"{path} is not there; name an image, a folder of images or a dataset file (.h5)")
        elif not Path(path).is_file():
            raise UserError(f"{path} is not a file, but a device or a pipe; name an image")
        elif not path.lower().endswith(_ARCHIVES):
            return _Images(Files([path]), [path], decode)
        else:
            tree = open_tree(Path(path))
    except OSError as error:  # too long a name, for one
        raise UserError(f"{path} can't be a file or folder: {error.strerror}") from error
    files = [name for name in tree.files if name.lower().endswith(tuple(suffixes))]
    if not files:
        raise UserError(f"{path} contains no images that the model can read ({', '.join(sorted(suffixes))})")
    used = set(files)
    for name in tree.files:
        if name not in used:
            tree.unused.add(name, "not a suffix of images that the model can read")
    return _Images(tree, files, decode)


def _decoding(model: Classifier, path: str) -> tuple[Decoder, Sequence[str], Callable[[], str]]:
    """How a file becomes an image for this model; the suffixes of such files in a folder; and what to report when all
    have been read.
    """
    preparation, shape = model.preparation, model.image_shape
    if isinstance(preparation, VolumePreparation):
        unsuited: list[str] = []
        decode = partial(_volume, preparation=preparation, unsuited=unsuited)
        return decode, nifti.SUFFIXES, partial(_unsuited_report, unsuited)
    if preparation is not None:
        return pictures.ImageTransform.of(preparation).decode, sorted(pictures.SUFFIXES), str
    if len(shape) != 3 or shape[0] not in (1, 3) or model.dtype not in (None, "uint8"):
        raise UserError(
            f"{path}: the model's data set was not made from image files, but from {model.dtype} arrays {shape} "
            "(channels first), so it can't take an image file; name a dataset file (.h5)"
        )
    return pictures.ImageTransform(mode="L" if shape[0] == 1 else "RGB").decode, sorted(pictures.SUFFIXES), str


def _volume(content: bytes, where: str, preparation: VolumePreparation, unsuited: list[str]) -> Array:
    size = preparation.size if preparation.resampled else None
    intensities = nifti.Intensities(preparation.window)
    image = nifti.decode(content, where, preparation.window, size, intensities)
    if fault := intensities.fault():
        unsuited.append(f"{where}: {fault}, {intensities}")
    return image


def _unsuited_report(unsuited: Sequence[str]) -> str:
    """Which volumes the model's window does not suit; empty for none. That may be intended, so it is not an error."""
    if not unsuited:
        return ""
    more = f"; and {len(unsuited) - 1} more" if len(unsuited) > 1 else ""
    return f"warning: volumes that the model's window does not suit: {min(unsuited)}{more}; are the units the same?"


def _dataset(path: Path, model: Classifier, split: str) -> _Dataset:
    try:
        info = inspect(path)
    except UserError as error:
        raise UserError(str(error).replace("data.file: ", "")) from error
    if split not in info.labels:
        raise UserError(f"{path} has no {split} split; it has {', '.join(info.labels)}")
    if info.image_shape != model.image_shape or model.dtype not in (None, info.dtype):
        raise UserError(
            f"{path} holds images {info.image_shape} {info.dtype}, but the model takes {model.image_shape} "
            f"{model.dtype or info.dtype}; prepare it like the model's data set"
        )
    return _Dataset(info, split)
