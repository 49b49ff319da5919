"""Interleaved measurements: the order rotates from round to round, and quartiles summarise all rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def rotated(items: Sequence[T], by: int) -> list[T]:
    """The same items, beginning with another one in each round.

    >>> rotated("abc", 4)
    ['b', 'c', 'a']
    """
    first = by % len(items)
    return [*items[first:], *items[:first]]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of at least one value; none lies beyond the values.

    >>> quartiles([1.0, 3.0])
    (1.5, 2.0, 2.5)
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def spread(values: tuple[float, float, float], unit: float = 1.0, digits: int = 1) -> str:
    """Median and quartiles in words, in multiples of ``unit``.

    >>> spread((1.5, 2.0, 2.5))
    '2.0 (1.5 to 2.5)'
    """
    low, middle, high = (f"{value / unit:,.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"
