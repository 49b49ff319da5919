"""Weak scaling: as much for each rank as before."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.decomposition.boxes import Box
from hpcdd.studies.weak_scaling import RepeatedReader, factors, grow


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 12, 64, 97, 1000])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (1, 2, 2)])
def test_factors_multiply_to_the_ranks_and_keep_images_compact(ranks: int, grid: tuple[int, ...]) -> None:
    growth = factors(ranks, grid)
    assert math.prod(growth) == ranks
    if ranks in (64, 1000):
        extents = [g * f for g, f in zip(grid, growth, strict=True)]
        assert max(extents) <= 6 * min(extents)


def settings(tiny: Path, **decomposition: object) -> Config:
    tree = {"data": {"file": str(tiny)}, "decomposition": decomposition, "model": {"name": "vgg2", "width": 8}}
    return Config.model_validate(tree)


def test_each_rank_has_as_much_to_do(tiny: Path) -> None:
    config = settings(tiny, grid=[1, 2])
    one = build_problem(config)
    many = grow(config, one, 6)
    assert len(many.decomposition) == 6 * len(one.decomposition)
    assert {box.shape for box in many.decomposition.boxes} == {box.shape for box in one.decomposition.boxes}
    assert many.widths.local_width == one.widths.local_width
    assert set(many.widths.local_parameters) == set(one.widths.local_parameters)
    assert grow(config, one, 1) == one


def test_a_repeated_image_has_the_pixels_of_the_image(tiny: Path) -> None:
    plain = BoxReader(tiny).read("train", Box((0, 0), (12, 12)))
    whole = np.tile(plain, (1, 1, 2, 3))
    reader = RepeatedReader(tiny, stored=(12, 12))
    box = Box((10, 5), (20, 30))
    assert np.array_equal(reader.read("train", box), whole[box.index])
    (padded,) = reader.read_rows("train", box, [np.array([3, 7])], padding=[(0, 2), (1, 0)])
    assert np.array_equal(padded[..., :-2, 1:], whole[[3, 7]][box.index])
    assert np.array_equal(padded[..., -1, 1:], whole[[3, 7], ..., 17, 5:30])


def test_what_can_not_be_repeated_is_refused(tiny: Path) -> None:
    for decomposition, message in (
        ({"coarse": True}, "coarse is true"),
        ({"boxes": [[[0, 0], [6, 6]]]}, "boxes are set"),
    ):
        config = settings(tiny, **decomposition)
        with pytest.raises(UserError, match=message):
            grow(config, build_problem(config), 2)
