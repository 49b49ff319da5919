"""Coarse images: pixels averaged in blocks, for the CNN that sees the whole image without details."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..decomposition.boxes import by

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Index = tuple[slice, ...]
_TILE_PIXELS = 1 << 18
"""Pixels that are averaged at once: their sums, eight bytes each, stay in the processor's cache."""


def coarse_shape(spatial: Sequence[int], block: Sequence[int]) -> tuple[int, ...]:
    """Pixels of the averaged image along each axis; where a block does not divide the image the last ones are smaller.

    >>> coarse_shape((28, 29), (2, 2))
    (14, 15)
    """
    return tuple(-(-n // b) for n, b in zip(spatial, block, strict=True))


def misfit(block: Sequence[int], spatial: Sequence[int]) -> str | None:
    """What is wrong with a block of pixels for images of spatial shape ``spatial``; None if it fits."""
    size = by(spatial)
    if len(block) != len(spatial):
        return (
            f"block {list(block)} has {len(block)} axes, but the images have {len(spatial)} spatial axes, {size} "
            f"pixels; give {len(spatial)} numbers"
        )
    if min(block) < 1:
        return f"block {list(block)} must hold positive numbers; use 1 or more along each axis"
    if any(b > n for b, n in zip(block, spatial, strict=True)):
        return f"block {list(block)} is larger than the images, {size} pixels; use a smaller one"
    if max(block) == 1:
        return f"block {list(block)} averages nothing; use 2 or more along at least one axis"
    return None


def average(images: Array, block: Sequence[int]) -> Array:
    """The images averaged in blocks of pixels; blocks at the end that are smaller, over their own pixels.

    Args:
        images: (n, C, *spatial). Integers are added exactly and rounded to the nearest, halves up; floats are added
            in float64.
        block: pixels along each spatial axis that become one.

    Returns:
        Array (n, C, *coarse) of the same dtype, see :func:`coarse_shape`. A pixel depends only on those of its
        block, so that averaging tiles of whole blocks gives the same bits as averaging everything.
    """
    averages: Array = np.empty((*images.shape[:2], *coarse_shape(images.shape[2:], block)), images.dtype)
    for fine, coarse in tiles(images.shape, block, (1,) * images.ndim, _TILE_PIXELS):
        averages[coarse] = _averaged(images[fine], block)
    return averages


def average_of_tensor(images: torch.Tensor, block: Sequence[int]) -> torch.Tensor:
    """As :func:`average`, on a tensor and its device, for an augmented batch; a block of ones averages nothing.

    The same numbers as :func:`average` for integers; floats are added in float32.
    """
    if max(block) == 1:
        return images
    import torch
    from torch.nn import functional

    pool = functional.avg_pool2d if len(block) == 2 else functional.avg_pool3d
    # The 24 bits of float32 must hold the sum of a block, and distinguish its mean from the nearest half.
    exact = images.is_floating_point() or math.prod(block) * (torch.iinfo(images.dtype).max + 1) <= 1 << 24
    pixels = images.to(torch.float32 if exact else torch.float64)
    averages = pool(pixels, tuple(block), ceil_mode=True, count_include_pad=False)
    return averages if images.is_floating_point() else averages.add_(0.5).floor_().to(images.dtype)


def tiles(
    shape: Sequence[int], block: Sequence[int], chunk: Sequence[int], limit: int
) -> Iterator[tuple[Index, Index]]:
    """Cuts an array of images into tiles of bounded size, each of whole blocks, in the order of memory.

    Args:
        shape: (n, C, *spatial) of the array.
        block: pixels along each spatial axis.
        chunk: a tile holds about a multiple of this along each axis, or the whole axis.
        limit: pixels of a tile; only where a chunk, rounded up to whole blocks, has more, a tile has more.

    Yields:
        The index of a tile in the images, and that of its averages in the coarse images.
    """
    blocks = (1, 1, *block)
    steps = [max(1, min(n, -(-c // b) * b)) for n, c, b in zip(shape, chunk, blocks, strict=True)]
    for axis in reversed(range(len(shape))):
        steps[axis] = max(1, min(shape[axis], steps[axis] * (limit // math.prod(steps) or 1)))
    for starts in itertools.product(*(range(0, n, step) for n, step in zip(shape, steps, strict=True))):
        stops = [min(start + step, n) for start, step, n in zip(starts, steps, shape, strict=True)]
        yield (
            tuple(slice(a, z) for a, z in zip(starts, stops, strict=True)),
            tuple(slice(a // b, -(-z // b)) for a, z, b in zip(starts, stops, blocks, strict=True)),
        )


def _averaged(images: Array, block: Sequence[int]) -> Array:
    """Averages (n, C, *coarse) in int64 or float64."""
    is_float = images.dtype.kind == "f"
    sums = images
    with np.errstate(invalid="ignore"):  # inf - inf: who reads pixels refuses what is not finite
        for axis, b in enumerate(block, start=2):
            sums = _added(sums, axis, b, np.float64 if is_float else np.int64)
        counts = _counts(images.shape[2:], block)
        # floor(s / c + 1/2) for integers: where c is odd, c // 2 loses half a unit, which changes no floor.
        averages: Array = sums / counts if is_float else (sums + counts // 2) // counts
    return averages


def _added(values: Array, axis: int, b: int, dtype: type[Any]) -> Array:
    """Adds b neighbours each along one axis."""
    before = (slice(None),) * axis
    sums: Array = values[(*before, slice(0, None, b))].astype(dtype)
    for offset in range(1, min(b, values.shape[axis])):
        more = values[(*before, slice(offset, None, b))]
        sums[(*before, slice(more.shape[axis]))] += more
    return sums


def _counts(spatial: Sequence[int], block: Sequence[int]) -> Any:
    """Pixels of each block, int64 that broadcasts over (n, C, *coarse); a plain int if all blocks are equal."""
    if all(n % b == 0 for n, b in zip(spatial, block, strict=True)):
        return math.prod(block)
    along = [np.diff(np.append(np.arange(0, n, b), n)) for n, b in zip(spatial, block, strict=True)]
    return functools.reduce(np.multiply.outer, along)
