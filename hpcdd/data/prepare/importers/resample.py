"""Volumes of another size: averages where an axis shrinks, linear interpolation where it grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def resample(volume: Array, size: Sequence[int]) -> Array:
    """Brings a volume to another size, axis by axis; the sides of its first and last voxels stay where they are.

    Args:
        volume: float32 of any shape.
        size: voxels along each axis.

    Returns:
        float32 of shape ``size``.
    """
    # The axes that shrink most come first, so that the others have less to do.
    for axis in sorted(range(volume.ndim), key=lambda a: size[a] / volume.shape[a]):
        if volume.shape[axis] != size[axis]:
            made = np.tensordot(_weights(volume.shape[axis], size[axis]), volume, (1, axis))
            volume = np.moveaxis(made, 0, axis)
    return volume


def _weights(n: int, m: int) -> Array:
    """Float32 (m, n): how much each of n old voxels along an axis adds to each of m new ones; rows add up to 1."""
    edges = np.arange(m + 1) * (n / m)
    if m < n:  # the fraction of each old voxel that lies in a new one
        old = np.arange(n)
        fractions = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
        return np.asarray(np.maximum(fractions, 0) * (m / n), np.float32)
    centres = np.clip((edges[1:] + edges[:-1]) / 2 - 0.5, 0, n - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(n))), np.float32)
