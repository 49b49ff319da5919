"""Volumes like chest CT, computed: healthy ones, and ones with a few lesions like ground glass. No patient's data.

For tests, demonstrations and benchmarks of 3D data. Positions are in units of half an edge, from -1 to 1
along each axis: D from feet to head, H from front to back, W from side to side; intensities in Hounsfield units.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....core.errors import UserError
from ....core.seeding import seed_of
from ...split import Indices
from ...writing import LeaveOut, Split
from .decode_pool import DecodePool
from .image_source import ImageSource
from .nifti import WINDOW

SUMMARY = "synthetic volumes like chest CT, healthy or with a few lesions, computed: no source is needed"
EXAMPLES = (
    "hpcdd prepare phantom phantom.h5 --grid 2,2,2",
    "hpcdd prepare phantom phantom.h5 --samples 200 --size 64 64 64 --seed 1 --test-fraction 0.25",
)
CLASSES = ("healthy", "lesions")
_SMALLEST, _LARGEST = 8, 1 << 27
_AIR, _TISSUE, _LUNG = -1000.0, 40.0, -850.0

Array = npt.NDArray[Any]
Position = Sequence[float] | Array
Grid = tuple[Array, Array, Array]
"""Positions along each axis, of shapes (D, 1, 1), (1, H, 1), (1, 1, W)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of this kind."""
    parser.add_argument("--samples", type=int, default=600, metavar="N", help="volumes in all (default: 600)")
    parser.add_argument(
        "--size",
        type=int,
        nargs=3,
        metavar=("D", "H", "W"),
        default=[32, 32, 32],
        help="voxels of a volume: feet to head, front to back, side to side (default: 32 32 32)",
    )


def read(_source: Path | None, pool: DecodePool, *, samples: int, size: list[int]) -> ImageSource:
    """Volumes that are computed when they are asked for, alternately healthy and ill.

    Args:
        pool: gives the seed; volume i depends only on (seed, i, size).
        samples: how many.
        size: (D, H, W).

    Returns:
        uint8 volumes (n, 1, D, H, W) of the window -1000 to 400 Hounsfield units, not split, in two classes.

    Raises:
        UserError: too few volumes, or a size that is too small or absurd.
    """
    if samples < 8:
        raise UserError(f"--samples is {samples}; use 8 or more, so each split has volumes of both classes")
    if min(size) < _SMALLEST or math.prod(size) > _LARGEST:
        raise UserError(
            f"--size is {' '.join(map(str, size))}; use {_SMALLEST} or more along each axis, and at most {_LARGEST:,} "
            "voxels"
        )

    def rows(indices: Indices, _: LeaveOut) -> Iterator[Array]:
        for index in indices:
            yield volume(size, pool.seed, int(index), ill=bool(index % 2))[np.newaxis]

    images = Split(np.arange(samples) % 2, (1, *size), "uint8", rows)
    source = f"synthetic, computed by hpcdd prepare phantom with seed {pool.seed}; no patient's data"
    return ImageSource({"train": images}, CLASSES, "chest phantom (synthetic)", source, synthetic=True)


def volume(size: Sequence[int], seed: int, index: int, *, ill: bool) -> Array:
    """One volume, uint8 (1, D, H, W): body, lungs, heart, vessels and noise; with one to three lesions if ``ill``."""
    generator = np.random.default_rng([seed_of(seed, "phantom"), index])
    d, h, w = ((np.arange(n, dtype=np.float32) + 0.5) * (2 / n) - 1 for n in size)
    grid: Grid = (d[:, None, None], h[None, :, None], w[None, None, :])
    voxel = 2 / min(size)
    body = _inside(np.hypot(grid[1] / generator.uniform(0.66, 0.76), grid[2] / generator.uniform(0.86, 0.96)), voxel)
    lungs, ellipsoids = _lungs(grid, generator, voxel)
    heart = _ellipsoid(grid, (-0.35, -0.2, 0.12), (0.4, 0.3, 0.3), voxel)
    lungs = lungs * (1 - heart)
    image = np.broadcast_to(_AIR + body * (_TISSUE - _AIR), tuple(size)).copy()
    image += lungs * (_LUNG + generator.normal(0, 25) - image)
    image += _vessels(grid, generator, ellipsoids, voxel) * lungs * (_TISSUE - image)
    image += generator.normal(0, 60, size).astype(np.float32)
    if ill:  # last, so that the rest does not depend on it
        image += _lesions(grid, generator, ellipsoids) * lungs
    low, high = WINDOW
    scaled = (np.clip(image, low, high) - low) * (255 / (high - low))
    return np.asarray(np.rint(scaled), np.uint8)[np.newaxis]


def _inside(radius: Array, voxel: float) -> Array:
    """1 where ``radius`` is below 1, 0 above, with an edge of about a voxel."""
    return np.asarray(np.clip((1 - radius) / (2 * voxel) + 0.5, 0, 1), np.float32)


def _distance(grid: Grid, centre: Position, radii: Position) -> Array:
    """Distance from a centre in units of the radii, (D, H, W)."""
    return np.asarray(np.sqrt(sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True))))


def _ellipsoid(grid: Grid, centre: Position, radii: Position, voxel: float) -> Array:
    return _inside(_distance(grid, centre, radii), voxel)


def _lungs(grid: Grid, generator: np.random.Generator, voxel: float) -> tuple[Array, list[tuple[Array, Array]]]:
    """Where lung is, (D, H, W) from 0 to 1; centre and radii of both."""
    ellipsoids = []
    for side in (-1, 1):
        centre = np.array([0.0, 0.0, 0.43 * side]) + generator.uniform(-0.03, 0.03, 3)
        radii = np.array([0.85, 0.48, 0.32]) * generator.uniform(0.92, 1.05, 3)
        ellipsoids.append((centre, radii))
    return np.maximum(*(_ellipsoid(grid, centre, radii, voxel) for centre, radii in ellipsoids)), ellipsoids


def _vessels(grid: Grid, generator: np.random.Generator, ellipsoids: list[tuple[Array, Array]], voxel: float) -> Array:
    """Where vessels are, (D, H, W) from 0 to 1: trees that start at the inner side of each lung."""
    vessels = np.zeros(tuple(x.size for x in grid), np.float32)
    for centre, radii in ellipsoids:
        root = centre * (1, 1, 0.4)
        for _ in range(5):
            middle = centre + radii * _in_ball(generator, 0.6)
            width = generator.uniform(0.025, 0.045)
            _draw_tube(vessels, grid, root, middle, width, voxel)
            for _ in range(2):
                _draw_tube(vessels, grid, middle, centre + radii * _in_ball(generator, 0.95), 0.6 * width, voxel)
    return vessels


def _draw_tube(mask: Array, grid: Grid, start: Array, stop: Array, width: float, voxel: float) -> None:
    """Raises ``mask`` (D, H, W) to 1 along a line; only voxels near it are looked at."""
    margin = width + voxel
    window = []
    for x, a, b in zip(grid, start, stop, strict=True):
        near = np.flatnonzero((x.ravel() > min(a, b) - margin) & (x.ravel() < max(a, b) + margin))
        if not near.size:
            return
        window.append(slice(int(near[0]), int(near[-1]) + 1))
    offsets = [
        x.take(range(s.start, s.stop), axis) - np.float32(a)
        for axis, (x, s, a) in enumerate(zip(grid, window, start, strict=True))
    ]
    line = (stop - start).astype(np.float32)
    along = np.clip(sum(o * t for o, t in zip(offsets, line, strict=True)) / np.float32(line @ line), 0, 1)
    distance = np.sqrt(sum((o - along * t) ** 2 for o, t in zip(offsets, line, strict=True)))
    part = mask[tuple(window)]
    np.maximum(part, np.clip((width - distance) / voxel + 0.5, 0, 1), out=part)


def _lesions(grid: Grid, generator: np.random.Generator, ellipsoids: list[tuple[Array, Array]]) -> Array:
    """Hounsfield units that one to three lesions add, float32 (D, H, W): hazy spots of uneven density."""
    added = np.zeros(tuple(x.size for x in grid), np.float32)
    for _ in range(generator.integers(1, 4)):
        centre, radii = ellipsoids[generator.integers(2)]
        middle = centre + radii * _in_ball(generator, 0.7)
        size = generator.uniform(0.14, 0.24) * generator.uniform(0.8, 1.25, 3)
        haze = np.exp(-(_distance(grid, middle, size) ** 4))
        density = generator.uniform(300, 550) * (1 + 0.3 * generator.standard_normal(added.shape))
        np.maximum(added, haze * density, out=added)
    return added


def _in_ball(generator: np.random.Generator, radius: float) -> Array:
    """A random point of a ball around 0."""
    direction = generator.standard_normal(3)
    return np.asarray(direction / np.linalg.norm(direction) * radius * generator.uniform() ** (1 / 3))
