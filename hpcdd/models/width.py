"""Width matching: local CNNs that are "proportionally smaller" than the global CNN, exactly."""

from __future__ import annotations

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
    """Finds the largest local width for which all S local CNNs together have at most the global CNN's parameters.

    All local CNNs share one width; their parameters differ where their subimages do. With an integer
    ``model.local_width`` nothing is searched.

    Args:
        settings: ``model`` section of the configuration.
        image_shape: (C, *spatial) of the whole image.
        subimage_shapes: (C, *spatial) of each of the S subimages.
        num_classes: K.

    Raises:
        UserError: even local CNNs of width 1 have more parameters than the global CNN, or the user's own factory
            does not heed the width.
    """
    counted: dict[tuple[tuple[int, ...], int], int] = {}

    def parameters(shape: Sequence[int], width: int) -> int:
        key = (tuple(shape), width)
        if key not in counted:
            counted[key] = count_parameters(settings, shape, num_classes, width)
        return counted[key]

    def local_parameters(width: int) -> tuple[int, ...]:
        return tuple(parameters(shape, width) for shape in subimage_shapes)

    budget = parameters(image_shape, settings.width)
    if settings.local_width != "match":
        width = settings.local_width
        return Widths(settings.width, width, budget, local_parameters(width))
    if sum(local_parameters(1)) > budget:
        raise UserError(
            f"{len(subimage_shapes)} local CNNs of width 1 have {sum(local_parameters(1)):,} parameters, more than the "
            f"global CNN of width {settings.width} ({budget:,}); increase model.width, use fewer subdomains, or set "
            "model.local_width to a number"
        )
    low, high = 1, 2  # low fits; high is to be the first that does not
    while sum(local_parameters(high)) <= budget:
        if local_parameters(high) == local_parameters(low):
            raise UserError(
                f"model.name is {settings.name!r}, whose number of parameters does not grow with the width, so widths "
                "can't be matched; set model.local_width to a number"
            )
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if sum(local_parameters(middle)) <= budget:
            low = middle
        else:
            high = middle
    return Widths(settings.width, low, budget, local_parameters(low))
