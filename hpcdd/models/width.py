"""Width matching: local CNNs with in total at most as many parameters as the global CNN."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from ..config.sections import ModelSettings
from ..core.errors import UserError
from .registry import count_parameters


@dataclass(frozen=True)
class Widths:
    """Widths of the global CNN and of the local CNNs, and the trainable parameters that follow from them."""

    global_width: int
    local_width: int
    global_parameters: int
    local_parameters: tuple[int, ...]


def match_widths(
    settings: ModelSettings,
    image_shape: Sequence[int],
    subimage_shapes: Sequence[Sequence[int]],
    num_classes: int,
) -> Widths:
    """Finds the largest local width for which all S local CNNs have in total at most the global CNN's parameters.

    All local CNNs have the same width; their parameters differ where their subimages do. With an integer
    ``model.local_width`` nothing is searched.

    Args:
        settings: ``model`` section of the configuration.
        image_shape: (C, *spatial) of the whole image.
        subimage_shapes: (C, *spatial) of each of the S subimages.
        num_classes: K.

    Raises:
        UserError: even local CNNs of width 1 have more parameters than the global CNN, or the user's factory ignores
            the width.
    """

    @functools.cache
    def parameters(shape: tuple[int, ...], width: int) -> int:
        return count_parameters(settings, shape, num_classes, width)

    def local_parameters(width: int) -> tuple[int, ...]:
        return tuple(parameters(tuple(shape), width) for shape in subimage_shapes)

    def total(width: int) -> int:
        return sum(local_parameters(width))

    budget = parameters(tuple(image_shape), settings.width)
    if settings.local_width != "match":
        width = settings.local_width
        return Widths(settings.width, width, budget, local_parameters(width))
    if total(1) > budget:
        raise UserError(
            f"{len(subimage_shapes)} local CNNs of width 1 have {total(1):,} parameters, more than the global "
            f"CNN of width {settings.width} ({budget:,}); increase model.width, use fewer subdomains, or set "
            "model.local_width to a number"
        )
    low, high = 1, 2  # low fits
    while total(high) <= budget:
        if local_parameters(high) == local_parameters(low):
            raise UserError(
                f"model.name is {settings.name!r}, whose number of parameters does not grow with the width, so widths "
                "can't be matched; set model.local_width to a number"
            )
        low, high = high, 2 * high
    width = bisect.bisect_right(range(high), budget, low + 1, key=total) - 1
    return Widths(settings.width, width, budget, local_parameters(width))
