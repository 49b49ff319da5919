"""Averaging in blocks: against a slow reference, exact at the limits of integers, in tiles of bounded size."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.data import coarse
from hpcdd.data.coarse import average, average_of_tensor, coarse_shape, misfit, tiles

Array = np.ndarray[Any, Any]
quickly = settings(deadline=None, max_examples=80)


def reference(images: Array, block: tuple[int, ...]) -> Array:
    """Block by block in exact fractions; integers rounded to the nearest, halves up."""
    out = np.empty((*images.shape[:2], *(math.ceil(n / b) for n, b in zip(images.shape[2:], block, strict=True))))
    for index in np.ndindex(*out.shape):
        window = [slice(i * b, (i + 1) * b) for i, b in zip(index[2:], block, strict=True)]
        pixels = images[index[0], index[1], *window].ravel()
        mean = sum((Fraction(pixel.item()) for pixel in pixels), Fraction(0)) / pixels.size
        out[index] = float(mean) if images.dtype.kind == "f" else math.floor(mean + Fraction(1, 2))
    return out.astype(images.dtype)


def random_images(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    """Full-range integers, or normal numbers."""
    generator = np.random.default_rng(seed)
    if dtype == "float32":
        return generator.normal(0, 100, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)


CASES = [
    ((8, 6), (2, 2)),
    ((8, 6), (4, 3)),
    ((9, 7), (2, 2)),  # the last blocks are smaller along both axes
    ((7, 7), (3, 2)),
    ((5, 6), (1, 4)),  # nothing is averaged along one axis
    ((5, 4), (5, 4)),  # one pixel is left
    ((4, 6, 8), (2, 3, 4)),
    ((5, 7, 3), (2, 2, 2)),
    ((6, 5, 4), (4, 1, 3)),
]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(("spatial", "block"), CASES, ids=str)
def test_averages_are_those_of_the_reference(spatial: tuple[int, ...], block: tuple[int, ...], dtype: str) -> None:
    images = random_images((5, 2, *spatial), dtype)
    averages, expected = average(images, block), reference(images, block)
    assert averages.dtype == dtype
    assert averages.shape == expected.shape == (5, 2, *coarse_shape(spatial, block))
    if dtype == "float32":
        np.testing.assert_array_max_ulp(averages, expected, maxulp=1)
    else:
        assert np.array_equal(averages, expected)


@st.composite
def images_and_blocks(draw: st.DrawFn) -> tuple[Array, tuple[int, ...]]:
    spatial = draw(st.lists(st.integers(1, 7), min_size=2, max_size=3))
    block = tuple(draw(st.integers(1, n)) for n in spatial)
    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 2)), *spatial)
    dtype = draw(st.sampled_from(["uint8", "int8", "uint16", "int16"]))
    limits = np.iinfo(dtype)
    images = random_images(shape, dtype, draw(st.integers(0, 99)))
    images[images > limits.max // 2] = limits.max  # the ends of the range are frequent
    return images, block


@quickly
@given(images_and_blocks())
def test_integers_are_exact(case: tuple[Array, tuple[int, ...]]) -> None:
    images, block = case
    assert np.array_equal(average(images, block), reference(images, block))


@pytest.mark.parametrize(
    ("pixels", "dtype", "expected"),
    [
        ([0, 0, 0, 1], "uint8", 0),
        ([0, 0, 1, 1], "uint8", 1),  # a half goes up
        ([254, 255, 255, 255], "uint8", 255),
        ([-1, 0, 0, -1], "int8", 0),  # up for negative numbers, too
        ([-1, -1, -1, 0], "int8", -1),
        ([-3, -3, -2, -2], "int8", -2),
        ([-128, -128, -128, -127], "int8", -128),
        ([-32768] * 4, "int16", -32768),
        ([32767] * 4, "int16", 32767),
        ([65535] * 4, "uint16", 65535),
        ([65535, 65535, 65535, 65533], "uint16", 65535),
    ],
)
def test_rounding(pixels: list[int], dtype: str, expected: int) -> None:
    images = np.array(pixels, dtype).reshape(1, 1, 2, 2)
    assert average(images, (2, 2)).tolist() == [[[[expected]]]]


@pytest.mark.parametrize(("dtype", "value"), [("uint16", 65535), ("int16", -32768), ("uint8", 255)])
def test_sums_of_large_blocks_do_not_overflow(dtype: str, value: int) -> None:
    images = np.full((1, 1, 300, 301), value, dtype)
    assert (average(images, (299, 300)) == value).all()


def test_large_floats_are_averaged_in_float64() -> None:
    largest = np.finfo(np.float32).max
    images = np.full((1, 1, 4, 4), largest, np.float32)
    assert (average(images, (2, 2)) == largest).all()
    small = np.array([1e8, 1, 1, -1e8], np.float32).reshape(1, 1, 2, 2)
    assert average(small, (2, 2)).item() == 0.5


def test_what_is_not_finite_stays_so_without_a_warning() -> None:
    images = np.zeros((4, 1, 4, 4), np.float32)
    images[0, 0, 0, 0], images[1, 0, 3, 3], images[2, 0, 0, :2] = np.nan, np.inf, (np.inf, -np.inf)
    finite = np.isfinite(average(images, (2, 2))).all(axis=(1, 2, 3))
    assert finite.tolist() == [False, False, False, True]


def test_strided_arrays_are_averaged_like_copies() -> None:
    images = random_images((6, 3, 9, 8), "int16")[::2, :, ::-1].swapaxes(2, 3)
    assert np.array_equal(average(images, (2, 3)), average(images.copy(), (2, 3)))


@pytest.mark.parametrize("limit", [1, 5, 12, 40, 1000])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("spatial", "block"), CASES, ids=str)
def test_the_size_of_the_tiles_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, spatial: tuple[int, ...], block: tuple[int, ...], dtype: str, limit: int
) -> None:
    images = random_images((7, 2, *spatial), dtype)
    whole = average(images, block)
    monkeypatch.setattr(coarse, "_TILE_PIXELS", limit)
    assert average(images, block).tobytes() == whole.tobytes()


@quickly
@given(st.data())
def test_tiles_cover_the_images_in_whole_blocks_and_are_bounded(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), min_size=4, max_size=5))
    block = [data.draw(st.integers(1, n)) for n in shape[2:]]
    chunk = [data.draw(st.integers(1, n)) for n in shape]
    limit = data.draw(st.integers(1, 400))
    seen, made = np.zeros(shape, int), np.zeros((*shape[:2], *coarse_shape(shape[2:], block)), int)
    least = math.prod(-(-c // b) * b for c, b in zip(chunk, (1, 1, *block), strict=True))
    for fine, averages in tiles(shape, block, chunk, limit):
        seen[fine] += 1
        made[averages] += 1
        assert seen[fine].size <= max(limit, least)
        assert coarse_shape(seen[fine].shape[2:], block) == made[averages].shape[2:]
        assert all(s.start % b == 0 for s, b in zip(fine[2:], block, strict=True))
    assert (seen == 1).all()
    assert (made == 1).all()


def test_tiles_follow_the_chunks_of_a_file() -> None:
    fine_indices = [fine for fine, _ in tiles((1000, 3, 32, 32), (2, 2), (170, 3, 32, 32), 4 << 20)]
    assert [(rows.start, rows.stop) for rows, *_ in fine_indices] == [(0, 1000)]
    fine_indices = [fine for fine, _ in tiles((1000, 3, 32, 32), (2, 2), (170, 3, 32, 32), 1 << 20)]
    assert [(rows.start, rows.stop) for rows, *_ in fine_indices] == [(0, 340), (340, 680), (680, 1000)]
    fine_indices = [fine for fine, _ in tiles((64, 1, 64, 64), (3, 3), (64, 1, 16, 16), 64 * 18 * 72)]
    assert [(rows.stop, a.start, b.start) for rows, _, a, b in fine_indices] == [(64, a, 0) for a in (0, 18, 36, 54)]


@pytest.mark.parametrize(
    ("dtype", "block", "values"),
    [
        ("uint16", (16, 16), (65534, 65535)),
        ("uint16", (17, 16), (65534, 65535)),
        ("int16", (23, 23), (-32768, -32767)),
        ("uint8", (273, 241), (254, 255)),  # a sum has 24 bits, but not the mean as well
        ("uint8", (2, 182, 181), (254, 255)),
    ],
    ids=str,
)
def test_tensors_are_averaged_exactly_at_the_limits(
    dtype: str, block: tuple[int, ...], values: tuple[int, int]
) -> None:
    """Means on both sides of a half, whose sums are beyond the integers of float32 or just below."""
    size = math.prod(block)
    counts = np.arange(size // 2 - 2, size // 2 + 4)
    pixels = np.random.default_rng(0).permuted(np.arange(size) < counts[:, None], axis=1)
    images = np.where(pixels, values[1], values[0]).astype(dtype).reshape(-1, 1, *block)
    averages = average_of_tensor(torch.from_numpy(images), block).numpy()
    assert averages.dtype == dtype
    assert np.array_equal(averages, average(images, block))


def test_memory_is_bounded() -> None:
    images = np.ones((2, 1, 128, 256, 256), np.uint8)  # 16 MiB, and one image is 8
    tracemalloc.start()
    try:
        averages = average(images, (2, 2, 2))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert averages.nbytes == images.nbytes // 8
    assert peak - averages.nbytes < 6 << 20


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ((2, 2, 2), "block [2, 2, 2] has 3 axes, but the images have 2 spatial axes, 8 x 6 pixels; give 2 numbers"),
        ((), "block [] has 0 axes"),
        ((0, 2), "block [0, 2] must hold positive numbers"),
        ((2, -2), "block [2, -2] must hold positive numbers"),
        ((2, 7), "block [2, 7] is larger than the images, 8 x 6 pixels"),
        ((1, 1), "block [1, 1] averages nothing"),
    ],
)
def test_misfits_are_named(block: tuple[int, ...], fault: str) -> None:
    assert fault in str(misfit(block, (8, 6)))


def test_blocks_that_fit() -> None:
    fitting = [block for block in itertools.product(range(-1, 10), repeat=2) if misfit(block, (8, 6)) is None]
    assert fitting == [(a, b) for a in range(1, 9) for b in range(1, 7) if (a, b) != (1, 1)]
