"""``bench io``: reading the boxes of a decomposition, from files of three layouts, and slices of a loaded array.

Chunks are checked, as in files of ``hpcdd prepare``; those of the boxes are also read from a file without checksums,
as a contiguous one always is. All contenders give the same bytes, from the page cache, with one thread, interleaved
in every round. CPU time is measured; on an idle machine it equals the wall time.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import h5py
import numpy as np

from ..config.schema import Config
from ..core.errors import UserError
from ..core.interleaved_timing import quartiles, spread
from ..data.checksums import SUFFIX
from ..data.chunks import chunk_shape
from ..data.format import inspect, open_dataset, reading_dataset, resolve
from ..data.reading import Array, BoxReader
from ..data.writing import LIBVER, ImageWriter
from ..decomposition.boxes import Box, Decomposition

LAYOUTS = ("contiguous", "whole images", "boxes", "boxes, unchecked")
NUMPY = "numpy slice"


@dataclasses.dataclass(frozen=True)
class ReadingCase:
    """Images and the boxes into which they are cut.

    Attributes:
        name: for the table.
        images: (n, C, *spatial).
        decomposition: of them.
    """

    name: str
    images: Array
    decomposition: Decomposition


def run(config: Config | None, rounds: int, mib: int, out: TextIO = sys.stdout) -> None:
    """Measures and prints.

    Args:
        config: data set and decomposition; None for the built-in cases.
        rounds: in each of which all are measured.
        mib: MiB of images in each file.
        out: where to print.

    Raises:
        UserError: data set and decomposition don't fit.
    """
    size = mib << 20
    cases = _built_in(size) if config is None else [_of_user(config, size)]
    print("reading all boxes, GB/s: median (quartiles); quotients to contiguous within a round", file=out)
    for case in cases:
        _print(case, measure(case, rounds), out)


def measure(case: ReadingCase, rounds: int) -> dict[str, list[float]]:
    """GB/s of each contender in each round, after one that is not counted."""
    boxes = case.decomposition.boxes
    with tempfile.TemporaryDirectory(prefix="hpcdd-bench-") as folder:
        contenders: dict[str, Callable[[Box], Array]] = {}
        for layout in LAYOUTS:
            path = Path(folder) / f"{layout}.h5"
            with h5py.File(path, "w", libver=LIBVER) as file:
                _write(file.create_group("train"), case, layout)
            contenders[layout] = functools.partial(BoxReader(path).read, "train")
        contenders[NUMPY] = lambda box: case.images[box.index].copy()
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, work in contenders.items():
                start = time.process_time()
                size = sum(work(box).nbytes for box in boxes)  # one after the other, as a rank with one box reads it
                seconds = time.process_time() - start
                if number:
                    speeds[name].append(size / max(1e-9, seconds) / 1e9)
    return speeds


def _write(train: h5py.Group, case: ReadingCase, layout: str) -> None:
    """As ``hpcdd prepare`` writes a file, with --grid (``boxes``) and without; or as plain HDF5, without checksums."""
    images = case.images
    if layout == "contiguous":
        train.create_dataset("images", data=images)
        return
    chunk = None if layout == "whole images" else chunk_shape(case.decomposition, images.itemsize)
    writer = ImageWriter.create(train, "images", len(images), images.shape[1:], str(images.dtype), 0, chunk)
    writer.append(images)
    writer.finish()
    if layout == "boxes, unchecked":
        del train["images" + SUFFIX]


def _built_in(size: int) -> Iterator[ReadingCase]:
    generator = np.random.default_rng(0)
    for name, shape, dtype in (
        ("quarters of 3 x 32 x 32", (3, 32, 32), np.uint8),
        ("quarters of 3 x 180 x 180", (3, 180, 180), np.uint8),
        ("eighths of volumes of 64 x 128 x 128, 2 bytes", (1, 64, 128, 128), np.int16),
    ):
        n = max(1, size // (int(np.prod(shape)) * np.dtype(dtype).itemsize))
        images = generator.integers(0, 256, (n, *shape)).astype(dtype)
        yield ReadingCase(name, images, Decomposition.grid(shape[1:], (2,) * (len(shape) - 1)))


def _of_user(config: Config, size: int) -> ReadingCase:
    """The first training images of a dataset file, in the decomposition of a configuration."""
    info = inspect(resolve(config.data.file))
    try:
        decomposition = Decomposition.from_settings(config.decomposition, info.image_shape[1:])
    except ValueError as error:
        raise UserError(str(error)) from error
    with open_dataset(info.path) as file, reading_dataset(info.path):
        stored = file["train/images"]
        n = max(1, min(len(stored), size // (int(np.prod(info.image_shape)) * stored.dtype.itemsize)))
        images = stored[:n]
    return ReadingCase(f"{info.name}, {n} images of {list(info.image_shape)}", images, decomposition)


def _print(case: ReadingCase, speeds: dict[str, list[float]], out: TextIO) -> None:
    print(f"\n{case.name}: {len(case.decomposition.boxes)} boxes", file=out)
    reference = speeds["contiguous"]
    for name, of_rounds in speeds.items():
        ratios = [speed / contiguous for speed, contiguous in zip(of_rounds, reference, strict=True)]
        label = name if name == NUMPY else f"chunks: {name}" if name != "contiguous" else name
        columns = "".join(f"{spread(quartiles(values), digits=2):>24}" for values in (of_rounds, ratios))
        print(f"{label:<24}{columns}", file=out, flush=True)
