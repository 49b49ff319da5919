"""Boxes: they tile the image, overlap as configured, and bad ones are named with axis and numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.config.sections import DecompositionSettings
from hpcdd.decomposition.boxes import Box, Decomposition, Subdomain, split_evenly

Grid = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Image, grid and overlap along 1 to 4 axes."""
    image = draw(st.lists(st.integers(1, 11), min_size=1, max_size=4))
    grid = [draw(st.integers(1, min(n, 4))) for n in image]
    overlap = [draw(st.integers(0, 12)) for _ in image]
    return tuple(image), tuple(grid), tuple(overlap)


quickly = settings(max_examples=60)


@quickly
@given(grids())
def test_cores_tile_the_image_exactly_once(case: Grid) -> None:
    image, grid, overlap = case
    decomposition = Decomposition.grid(image, grid, overlap)
    count = np.zeros(image, int)
    for core in decomposition.cores:
        assert all(stop > start for start, stop in zip(core.start, core.stop, strict=True))
        count[core.slices] += 1
    assert (count == 1).all()
    assert len(decomposition) == len(decomposition.cores) == np.prod(grid)
    assert sum(core.size for core in decomposition.cores) == np.prod(image)
    assert decomposition.coverage() == 1.0


@quickly
@given(grids())
def test_core_sizes_along_an_axis_differ_by_at_most_one(case: Grid) -> None:
    image, grid, _ = case
    cores = Decomposition.grid(image, grid).cores
    for axis, parts in enumerate(grid):
        sizes = Counter(core.shape[axis] for core in cores)
        assert max(sizes) - min(sizes) <= 1
        assert len({core.start[axis] for core in cores}) == parts


@quickly
@given(grids())
def test_each_box_is_its_core_enlarged_by_the_overlap_and_cut_at_the_border(case: Grid) -> None:
    image, grid, overlap = case
    decomposition = Decomposition.grid(image, grid, overlap)
    for core, box in zip(decomposition.cores, decomposition.boxes, strict=True):
        for axis, (n, width) in enumerate(zip(image, overlap, strict=True)):
            wanted = [i for i in range(n) if core.start[axis] - width <= i < core.stop[axis] + width]
            assert list(range(box.start[axis], box.stop[axis])) == wanted


@quickly
@given(grids(), st.lists(st.integers(0, 3), max_size=2))
def test_decompose_then_assemble_gives_the_image_back(case: Grid, leading: list[int]) -> None:
    image, grid, overlap = case
    decomposition = Decomposition.grid(image, grid, overlap)
    pixels = np.random.default_rng(0).integers(0, 255, (*leading, *image)).astype(np.uint8)
    subimages = [pixels[box.index].copy() for box in decomposition.boxes]
    for subimage, core, box in zip(subimages, decomposition.cores, decomposition.boxes, strict=True):
        assert subimage.shape == (*leading, *box.shape)
        inside = np.zeros(box.shape, bool)
        inside[core.within(box).slices] = True
        subimage[..., ~inside] = 255 - subimage[..., ~inside]  # only the core counts
    assembled = decomposition.assemble(subimages)
    assert assembled.dtype == np.uint8
    assert np.array_equal(assembled, pixels)


@given(st.integers(1, 1000), st.data())
def test_split_evenly_is_a_partition_with_the_larger_intervals_first(length: int, data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, length))
    intervals = split_evenly(length, parts)
    assert [i for start, stop in intervals for i in range(start, stop)] == list(range(length))
    sizes = [stop - start for start, stop in intervals]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


def test_subdomains_are_numbered_with_the_last_axis_fastest() -> None:
    decomposition = Decomposition.grid((4, 6), (2, 3), 1)
    assert [core.start for core in decomposition.cores] == [(0, 0), (0, 2), (0, 4), (2, 0), (2, 2), (2, 4)]
    assert decomposition.boxes[4] == Box((1, 1), (4, 5))
    assert decomposition.overlap == (1, 1)


def test_overlap_may_be_given_per_axis() -> None:
    assert Decomposition.grid((8, 8), (2, 2), (0, 3)).boxes[0] == Box((0, 0), (4, 7))


@pytest.mark.parametrize(
    ("image", "grid", "overlap", "expected_texts"),
    [
        ((28, 28), (2, 29), 0, ["decomposition.grid is [2, 29]", "28 pixels", "axis 1", "1 to 28"]),
        ((28, 28), (2,), 0, ["decomposition.grid is [2]", "1 axes", "2 spatial axes", "28 x 28"]),
        ((28, 28), (2, 2, 2), 0, ["[2, 2, 2]", "3 axes", "2 spatial axes"]),
        ((28, 28), (0, 2), 0, ["[0, 2]", "axis 0", "1 to 28"]),
        ((28, 28), (2, 2), (1, 1, 1), ["decomposition.overlap is [1, 1, 1]", "3 axes", "one number, or 2"]),
        ((28, 28), (2, 2), -2, ["decomposition.overlap is -2", "axis 0", "axis 1"]),
        ((28, 28), (2, 2), (1, -3), ["decomposition.overlap is -3", "axis 1"]),
        ((5, 6), (6, 7), -1, ["5 pixels", "6 pixels", "axis 0", "axis 1", "overlap is -1"]),  # all at once
    ],
)
def test_errors_name_axis_and_numbers(
    image: tuple[int, ...], grid: tuple[int, ...], overlap: int | tuple[int, ...], expected_texts: list[str]
) -> None:
    with pytest.raises(ValueError, match="decomposition") as error:
        Decomposition.grid(image, grid, overlap)
    assert [text for text in expected_texts if text not in str(error.value)] == []


def test_explicit_boxes_are_used_as_they_are() -> None:
    decomposition = Decomposition.from_boxes((8, 8), [((0, 0), (8, 4)), ((2, 3), (5, 8))])
    assert decomposition.parts is None
    assert decomposition.cores == decomposition.boxes == (Box((0, 0), (8, 4)), Box((2, 3), (5, 8)))


def test_each_bad_box_is_named_and_no_good_one() -> None:
    boxes = [
        ((0, 0), (4, 4)),
        ((0, 0), (9, 4)),  # beyond the image along axis 0
        ((3, 3), (3, 4)),  # empty along axis 0
        ((0, 5), (4, 2)),  # reversed along axis 1
        ((0,), (4,)),  # one axis
        ((-1, 0), (4, 9)),  # wrong along both
    ]
    with pytest.raises(ValueError, match="boxes") as error:
        Decomposition.from_boxes((8, 8), boxes)
    messages = str(error.value).split("; decomposition")
    assert [text.split("boxes[")[1][0] for text in messages] == ["1", "2", "3", "4", "5", "5"]
    assert ["axis 0" in text for text in messages] == [True, True, False, False, True, False]
    assert "[[0, 5], [4, 2]]" in messages[2]
    assert "2 spatial axes" in messages[3]


@pytest.mark.parametrize(
    ("boxes", "coverage"),
    [
        ([((0, 0), (8, 4)), ((0, 5), (8, 8))], 7 / 8),  # a gap of one column
        ([((0, 0), (8, 5)), ((0, 4), (8, 8))], 1.0),  # column 4 twice
    ],
)
def test_boxes_with_gaps_or_overlap_cannot_be_assembled(boxes: list[object], coverage: float) -> None:
    decomposition = Decomposition.from_boxes((8, 8), boxes)  # type: ignore[arg-type]
    assert decomposition.coverage() == pytest.approx(coverage)
    with pytest.raises(ValueError, match="do not tile"):
        decomposition.assemble([np.zeros(box.shape) for box in decomposition.boxes])


@quickly
@given(st.lists(st.tuples(*[st.tuples(st.integers(0, 6), st.integers(1, 6))] * 3), min_size=1, max_size=6))
def test_coverage_is_the_fraction_of_pixels_in_boxes(boxes: list[tuple[tuple[int, int], ...]]) -> None:
    image = (7, 9, 8)
    limits = [[(a, min(a + n, end)) for (a, n), end in zip(box, image, strict=True)] for box in boxes]
    decomposition = Decomposition.from_boxes(image, [tuple(zip(*box, strict=True)) for box in limits])  # type: ignore[misc]
    seen = np.zeros(image, bool)
    for box in decomposition.boxes:
        seen[box.slices] = True
    assert decomposition.coverage() == pytest.approx(seen.mean(), abs=1e-12)


def test_the_coverage_of_a_huge_image_takes_no_memory() -> None:
    decomposition = Decomposition.from_boxes((1 << 20, 1 << 20), [((0, 0), (1 << 19, 1 << 20)), ((9, 0), (10, 1))])
    assert decomposition.coverage() == 0.5


def test_boxes_that_tile_are_assembled() -> None:
    decomposition = Decomposition.from_boxes((4, 4), [((0, 0), (4, 1)), ((0, 1), (1, 4)), ((1, 1), (4, 4))])
    pixels = np.arange(32).reshape(2, 4, 4)
    assert np.array_equal(decomposition.assemble([pixels[box.index] for box in decomposition.boxes]), pixels)


def test_assemble_wants_one_subimage_per_subdomain() -> None:
    decomposition = Decomposition.grid((4, 4), (2, 2))
    with pytest.raises(ValueError, match="zip"):
        decomposition.assemble([np.zeros((2, 2))] * 3)


def test_from_settings() -> None:
    assert Decomposition.from_settings(DecompositionSettings(), (8, 8, 8)).parts == (2, 2, 2)
    assert Decomposition.from_settings(DecompositionSettings(grid=(1, 3), overlap=2), (8, 8)).overlap == (2, 2)
    explicit = Decomposition.from_settings(DecompositionSettings(boxes=[[[0, 1], [2, 3]]]), (8, 8))
    assert explicit.boxes == (Box((0, 1), (2, 3)),)
    assert explicit.coarse is None
    coarse = Decomposition.from_settings(DecompositionSettings(grid=(1, 3), overlap=1, coarse=True), (8, 9))
    assert coarse == Decomposition.grid((8, 9), (1, 3), 1).with_coarse()
    assert coarse.coarse == (1, 2)
    uniform = Decomposition.from_settings(DecompositionSettings(grid=(3,), uniform=True), (28,))
    assert [box.shape for box in uniform.boxes] == [(10,), (10,), (10,)]
    explicit = Decomposition.from_settings(DecompositionSettings(boxes=[[[0, 1], [2, 3]]], coarse=True), (8, 8))
    assert explicit.coarse == (4, 4)
    with pytest.raises(ValueError, match=r"decomposition\.coarse is true"):
        Decomposition.from_settings(DecompositionSettings(grid=(1, 1), coarse=True), (8, 8))


@pytest.mark.parametrize(
    ("box", "block", "shape"),
    [
        (Box((0, 0), (28, 28)), (2, 2), (14, 14)),
        (Box((0, 0), (29, 28)), (2, 3), (15, 10)),
        (Box((3, 5), (8, 9)), (1, 1), (5, 4)),
        (Box((0, 0, 0), (5, 6, 7)), (1, 6, 4), (5, 1, 2)),
        (Box((0,), (3,)), (5,), (1,)),
    ],
)
def test_a_subdomain_is_a_box_averaged_in_blocks(box: Box, block: tuple[int, ...], shape: tuple[int, ...]) -> None:
    subdomain = Subdomain(box, block)
    assert subdomain.shape == shape
    assert subdomain.is_coarse == (block != (1, 1))


@pytest.mark.parametrize(
    ("image", "grid", "overlap", "block", "shape"),
    [
        ((28, 28), (2, 2), 0, (2, 2), (14, 14)),
        ((29, 29), (2, 2), 0, (2, 2), (15, 15)),
        ((28, 28), (3, 3), 0, (3, 3), (10, 10)),
        ((32, 32), (2, 2), 2, (2, 2), (16, 16)),  # boxes of 18 x 18
        ((32, 32), (1, 4), 0, (1, 4), (32, 8)),
        ((8, 8), (8, 8), 0, (8, 8), (1, 1)),
        ((7, 8, 9), (2, 2, 2), 0, (2, 2, 2), (4, 4, 5)),
        ((16, 16, 4), (4, 2, 1), 1, (3, 2, 1), (6, 8, 4)),  # boxes of 6 x 9 x 4
    ],
)
def test_the_coarse_subdomain_is_as_large_as_a_box_or_a_little_smaller(
    image: tuple[int, ...], grid: tuple[int, ...], overlap: int, block: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    fine = Decomposition.grid(image, grid, overlap)
    both = fine.with_coarse()
    assert both.coarse == block
    assert both.subdomains[-1] == Subdomain(Box((0,) * len(image), image), block)
    assert both.subdomains[-1].shape == shape
    assert both.subdomains[-1].is_coarse


@quickly
@given(grids())
def test_the_coarse_subdomain_is_one_more_and_the_last(case: Grid) -> None:
    image, grid, overlap = case
    fine = Decomposition.grid(image, grid, overlap)
    assert fine.coarse is None
    assert len(fine) == len(fine.subdomains) == len(fine.boxes)
    assert [subdomain.box for subdomain in fine.subdomains] == list(fine.boxes)
    assert [subdomain.shape for subdomain in fine.subdomains] == [box.shape for box in fine.boxes]
    assert not any(subdomain.is_coarse for subdomain in fine.subdomains)
    if Box((0,) * len(image), image) in fine.boxes:
        with pytest.raises(ValueError, match="so there is nothing to average"):
            fine.with_coarse()
        return
    both = fine.with_coarse()
    assert len(both) == len(both.subdomains) == len(fine) + 1
    assert both.subdomains[:-1] == fine.subdomains
    assert (both.boxes, both.cores, both.parts) == (fine.boxes, fine.cores, fine.parts)
    largest = [max(box.shape[axis] for box in both.boxes) for axis in range(len(image))]
    coarse = both.subdomains[-1]
    for n, b, pixels, most in zip(image, coarse.block, coarse.shape, largest, strict=True):
        assert pixels <= most
        assert b == 1 or -(-n // (b - 1)) > most  # the finest that is small enough
    subimages = [np.zeros(box.shape) for box in both.boxes]
    assert both.assemble(subimages).shape == image


@quickly
@given(grids())
def test_uniform_boxes_are_of_one_shape_inside_the_image_and_contain_those_of_the_grid(case: Grid) -> None:
    image, grid, overlap = case
    plain = Decomposition.grid(image, grid, overlap)
    uniform = plain.with_uniform_boxes()
    assert len({box.shape for box in uniform.boxes}) == 1
    for before, after in zip(plain.boxes, uniform.boxes, strict=True):
        assert all(0 <= a <= p for a, p in zip(after.start, before.start, strict=True))
        assert all(q <= b <= n for q, b, n in zip(before.stop, after.stop, image, strict=True))
    longest = [max(box.shape[axis] for box in plain.boxes) for axis in range(len(image))]
    assert uniform.boxes[0].shape == tuple(longest)
    assert (uniform.cores, uniform.with_uniform_boxes()) == (plain.cores, uniform)


def test_uniform_boxes_grow_on_both_sides_and_away_from_the_border() -> None:
    boxes = Decomposition.grid((28,), (3,), 2).with_uniform_boxes().boxes  # 12, 13 and 11 pixels before
    assert [(box.start[0], box.stop[0]) for box in boxes] == [(0, 13), (8, 21), (15, 28)]


def test_the_coarse_subdomain_of_explicit_boxes() -> None:
    boxes = [((0, 0), (3, 8)), ((2, 1), (8, 4))]  # 3 x 8 and 6 x 3 pixels
    assert Decomposition.from_boxes((8, 12), boxes).with_coarse().coarse == (2, 2)
    both = Decomposition.from_boxes((8, 8), boxes).with_coarse()
    assert both.coarse == (2, 1)  # along axis 1 a box reaches over the whole image
    assert (len(both), both.subdomains[-1].shape) == (3, (4, 8))


def test_a_box_as_large_as_the_image_leaves_nothing_to_average() -> None:
    decomposition = Decomposition.from_boxes((8, 9), [((0, 0), (4, 4)), ((0, 0), (8, 9))])
    with pytest.raises(
        ValueError, match=r"decomposition\.coarse is true, but the boxes are 8 x 9 pixels large .* 8 x 9"
    ):
        decomposition.with_coarse()
