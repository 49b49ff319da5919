"""Chunks along the boxes that will be read."""

from __future__ import annotations

import math

import pytest

from hpcdd.data.chunks import chunk_shape, rows_of_chunk
from hpcdd.decomposition.boxes import Decomposition


@pytest.mark.parametrize(
    ("image", "grid", "core"),
    [
        ((32, 32), (2, 2), (16, 16)),
        ((180, 180), (2, 2), (90, 90)),
        ((28, 29), (2, 3), (14, 10)),
        ((64, 128, 128), (2, 2, 2), (32, 64, 64)),
        ((32, 32, 32), (2, 2, 1), (16, 16, 32)),
        ((32, 32), (1, 1), (32, 32)),
    ],
)
def test_without_overlap_a_chunk_is_a_core(
    image: tuple[int, ...], grid: tuple[int, ...], core: tuple[int, ...]
) -> None:
    assert chunk_shape(Decomposition.grid(image, grid), 1) == core


@pytest.mark.parametrize("overlap", [1, 2, 4, 7])
@pytest.mark.parametrize(("image", "grid"), [((32, 32), (2, 2)), ((180, 180), (3, 2)), ((32, 32, 32), (2, 2, 2))])
def test_with_overlap_boxes_touch_less_than_they_would_of_whole_images(
    image: tuple[int, ...], grid: tuple[int, ...], overlap: int
) -> None:
    decomposition = Decomposition.grid(image, grid, overlap)
    chunk = chunk_shape(decomposition, 1)
    assert all(1 <= c <= n for c, n in zip(chunk, image, strict=True))
    touched = 0
    for box in decomposition.boxes:
        sides = [-(-stop // c) * c - start // c * c for start, stop, c in zip(box.start, box.stop, chunk, strict=True)]
        touched += math.prod(min(side, n) for side, n in zip(sides, image, strict=True))
    assert touched < 0.75 * len(decomposition.boxes) * math.prod(image)


@pytest.mark.parametrize(
    ("n", "shape", "chunk", "dtype", "rows"),
    [
        (60_000, (3, 32, 32), (16, 16), "uint8", 682),  # half a megabyte
        (100, (3, 32, 32), (16, 16), "uint8", 100),
        (60_000, (3, 32, 32), (16, 16), "float32", 170),
        (5, (1, 512, 512, 512), (256, 256, 256), "int16", 1),
        (4_000, (1, 128, 128, 128), (8, 8, 8), "uint8", 16),  # 32 megabytes of whole images
        (0, (1, 8, 8), (8, 8), "uint8", 1),
    ],
)
def test_rows_that_share_a_chunk(n: int, shape: tuple[int, ...], chunk: tuple[int, ...], dtype: str, rows: int) -> None:
    assert rows_of_chunk(n, shape, chunk, dtype) == rows
