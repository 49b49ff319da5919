"""How the pixels of a dataset file are cut into chunks, so that reading one box leaves the others on the disk."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ..decomposition.boxes import Box, Decomposition

_CHUNK_BYTES = 1 << 19
_ROWS_BYTES = 1 << 25
"""Most bytes of whole images in one row of chunks, which is held in memory while it is written."""
_RUN_BYTES = 16
"""What the start of a run of pixels costs, as bytes to read; it keeps chunks from becoming narrow strips."""


def chunk_shape(decomposition: Decomposition, pixel_bytes: int) -> tuple[int, ...]:
    """Pixels of a chunk along each axis, chosen such that reading all boxes costs least.

    Without overlap these are the cores of the boxes (where the grid does not divide the image, the largest one).
    With overlap such a chunk would make every box read its neighbours whole, so that smaller ones are tried too.

    Args:
        decomposition: the boxes that will be read, of a grid.
        pixel_bytes: bytes of one pixel of one channel.
    """
    candidates = []
    for axis, n in enumerate(decomposition.image):
        core = max(box.shape[axis] for box in decomposition.cores)
        reach = min(n, core + decomposition.overlap[axis])
        parts = {-(-length // k) for length in (core, reach) for k in range(1, 5)}
        candidates.append(sorted(parts | {n}, reverse=True))

    def cost(chunk: tuple[int, ...]) -> float:
        touched = sum(_touched(box, chunk, decomposition.image) for box in decomposition.boxes)
        needed = sum(box.size for box in decomposition.boxes)
        run = min(chunk[-1], max(box.shape[-1] for box in decomposition.boxes))
        return touched / needed + _RUN_BYTES / (run * pixel_bytes)

    return min(itertools.product(*candidates), key=cost)


def _touched(box: Box, chunk: tuple[int, ...], image: tuple[int, ...]) -> int:
    """Pixels of all chunks that a box meets."""
    return math.prod(
        min(n, -(-stop // c) * c) - start // c * c
        for start, stop, c, n in zip(box.start, box.stop, chunk, image, strict=True)
    )


def rows_of_chunk(n: int, image_shape: tuple[int, ...], chunk: tuple[int, ...], dtype: str) -> int:
    """Images that share a chunk: as many as fill half a megabyte, while one row of chunks stays small.

    Args:
        n: images in all.
        image_shape: (C, *spatial).
        chunk: pixels of a chunk along each spatial axis.
        dtype: of the pixels.
    """
    size = np.dtype(dtype).itemsize * image_shape[0]
    fitting = min(_CHUNK_BYTES // (size * math.prod(chunk)), _ROWS_BYTES // (size * math.prod(image_shape[1:])))
    return max(1, min(n, fitting))
