"""Single images in the formats that Pillow knows: decoded, oriented, made grey or RGB, brought to one size."""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import UserError
from ..preparation import PicturePreparation

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp", ".gif"})
FITS = ("resize", "crop", "pad")
_MOST_PIXELS = 1 << 26
"""No image of a data set has as many pixels; a file of some kilobytes can claim more than the memory holds."""


@dataclass(frozen=True)
class Form:
    """What every image is made to be.

    Attributes:
        size: (H, W) in pixels; None: as it is.
        fit: how: ``resize`` stretches, ``crop`` scales and cuts what stands out, ``pad`` scales and fills with black.
        mode: ``L`` (grey) or ``RGB``; None: grey stays grey, all others become RGB.
    """

    size: tuple[int, int] | None = None
    fit: str = "resize"
    mode: str | None = None

    @classmethod
    def of(cls, preparation: PicturePreparation) -> Form:
        """The form that the images of a data set were given."""
        if preparation.fit is None:
            return cls(mode=preparation.mode)
        return cls(preparation.size, preparation.fit, preparation.mode)

    def preparation(self, image_shape: tuple[int, ...]) -> PicturePreparation:
        """What the images of a data set have really become: those of (C, H, W)."""
        channels, height, width = image_shape
        fit = None if self.size is None else self.fit
        return PicturePreparation(size=(height, width), fit=fit, mode="L" if channels == 1 else "RGB")

    def decode(self, content: bytes, where: str) -> npt.NDArray[Any]:
        """One image as uint8 (1, H, W) if it is grey, else (3, H, W) RGB.

        Args:
            content: of the file.
            where: the file in messages.

        Raises:
            UserError: it is damaged, no image, has more than 8 bits per pixel or absurdly many pixels.
        """
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise UserError(
                        f"{where} claims to have {image.width} x {image.height} pixels; "
                        f"no image of a data set has more than {_MOST_PIXELS:,}"
                    )
                if image.mode.startswith(("I", "F")):  # Pillow would clip them to 8 bits
                    raise UserError(f"{where} has more than 8 bits per pixel (mode {image.mode}); convert it to 8 bits")
                mode = self.mode or ("L" if image.mode in ("1", "L") else "RGB")
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                pixels = np.asarray(self._fitted(image.convert(mode)))
        except UserError:
            raise
        except UnidentifiedImageError as error:
            raise UserError(
                f"{where} is not an image that can be read: it is damaged, or of no format that Pillow knows"
            ) from error
        except Exception as error:  # its many decoders raise whatever a damaged file makes them stumble over
            raise UserError(f"{where} is not an image that can be read: {error}") from error
        return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def _fitted(self, image: Any) -> Any:
        from PIL import Image, ImageOps

        if self.size is None:
            return image
        size, filtered = self.size[::-1], Image.Resampling.BILINEAR
        if self.fit == "crop":
            return ImageOps.fit(image, size, filtered)
        if self.fit == "pad":
            return ImageOps.pad(image, size, filtered)
        return image if image.size == size else image.resize(size, filtered)


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares ``--size`` and ``--fit``."""
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="pixels of every image (default: all must be of one size)"
    )
    parser.add_argument(
        "--fit",
        choices=FITS,
        help="with --size: stretch to it (resize), scale and cut what stands out (crop), scale and fill up with black "
        "(pad); default: resize",
    )


def form(size: list[int] | None, fit: str | None, mode: str | None = None) -> Form:
    """The form behind the options.

    Raises:
        UserError: a size that is not positive or absurd, or ``--fit`` without ``--size``.
    """
    if size is None:
        if fit is not None:
            raise UserError(f"--fit {fit} says how images are brought to one size; name it with --size H W")
        return Form(None, FITS[0], mode)
    if min(size) < 1 or size[0] * size[1] > _MOST_PIXELS:
        raise UserError(f"--size is {size[0]} {size[1]}; use positive numbers, at most {_MOST_PIXELS:,} pixels in all")
    return Form((size[0], size[1]), fit or FITS[0], mode)
