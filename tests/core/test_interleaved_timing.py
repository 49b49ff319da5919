"""A rotation in which everything comes first once, and quartiles within the range of the data."""

from __future__ import annotations

import pytest

from hpcdd.core.interleaved_timing import quartiles, rotated


def test_every_item_is_first_once() -> None:
    rounds = [rotated([1, 2, 3], by) for by in range(-1, 2)]
    assert rounds == [[3, 1, 2], [1, 2, 3], [2, 3, 1]]


@pytest.mark.parametrize("values", [[5.0], [1.0, 3.0], [0.1, 2.0], [0.9, 1.0, 1.4], [4.0, 1.0, 2.0, 3.0]])
def test_quartiles_lie_within_the_data(values: list[float]) -> None:
    low, middle, high = quartiles(values)
    assert min(values) <= low <= middle <= high <= max(values)


def test_quartiles_of_five() -> None:
    assert quartiles([5.0, 1.0, 4.0, 2.0, 3.0]) == (2.0, 3.0, 4.0)
