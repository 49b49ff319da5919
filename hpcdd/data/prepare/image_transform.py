"""How a file of one image became an image of a data set, in a form that travels with the data set and its models."""

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
    """Of a picture in one of the usual formats, see :class:`.importers.image_files.ImageTransform`."""

    kind: Literal["picture"] = "picture"
    size: Annotated[tuple[PositiveInt, PositiveInt], _at_most(MOST_PIXELS, "pixels")]
    """(H, W) of all images, pixels."""
    fit: Literal["resize", "crop", "pad"] | None
    """How others are brought to this size; None: they are not, all files of the data set had it."""
    mode: Literal["L", "RGB"]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return 1 if self.mode == "L" else 3, *self.size


class VolumePreparation(_Described):
    """Of a NIfTI volume, see :func:`hpcdd.data.prepare.importers.nifti.decode`."""

    kind: Literal["volume"] = "volume"
    size: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], _at_most(MOST_VOXELS, "voxels")]
    """(D, H, W) of all volumes, voxels."""
    resampled: bool
    """Whether others are brought to this size; else all files of the data set had it."""
    window: tuple[float, float]
    """Intensities that become 0 and 255."""

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
