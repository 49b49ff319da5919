"""How a file of one image became an image of a data set, in a form that is stored with the data set and its models."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter

from ...decomposition.boxes import by

MOST_PIXELS = 1 << 26
"""Of an image that is decoded, and of one in a data set; a file of some kilobytes can claim more than memory holds."""
MOST_VOXELS = 1 << 31
"""Of a volume."""


def _at_most(most: int, what: str) -> AfterValidator:
    def check(size: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(size) > most:
            raise ValueError(f"{by(size)} are more than {most:,} {what}")
        return size

    return AfterValidator(check)


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> str:
        """What :func:`from_json` reads."""
        return self.model_dump_json()


class PicturePreparation(_Described):
    """Preparation of a two-dimensional image, as of ``hpcdd prepare folder``.

    Attributes:
        kind: kind of the preparation.
        size: (H, W) of all images, pixels.
        fit: how an image of another size is brought to this size: ``resize`` stretches it, ``crop`` scales it and cuts
            off what extends beyond, ``pad`` scales it and fills the rest with black; null: it is refused.
        mode: ``L``, one grey channel, or ``RGB``, three channels.
    """

    kind: Literal["picture"] = "picture"
    size: Annotated[tuple[PositiveInt, PositiveInt], _at_most(MOST_PIXELS, "pixels")]
    fit: Literal["resize", "crop", "pad"] | None
    mode: Literal["L", "RGB"]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return 1 if self.mode == "L" else 3, *self.size


class VolumePreparation(_Described):
    """Preparation of a NIfTI volume, as of ``hpcdd prepare nifti``.

    Attributes:
        kind: kind of the preparation.
        size: (D, H, W) of all volumes, voxels: from feet to head, front to back, right to left.
        resampled: whether a volume of another size is resampled to this size; otherwise it is refused.
        window: intensities that become 0 and 255; others are clipped.
    """

    kind: Literal["volume"] = "volume"
    size: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], _at_most(MOST_VOXELS, "voxels")]
    resampled: bool
    window: tuple[float, float]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(1, D, H, W)."""
        return 1, *self.size


Preparation = PicturePreparation | VolumePreparation
_ADAPTER: TypeAdapter[Preparation] = TypeAdapter(Annotated[Preparation, Field(discriminator="kind")])


def from_json(text: str) -> Preparation:
    """What ``to_json`` wrote.

    Raises:
        ValueError: it is something else.
    """
    return _ADAPTER.validate_json(text)
