"""Single images in the usual formats (:data:`FORMATS`): decoded, oriented, made grey or RGB, brought to one size."""

from __future__ import annotations

import argparse
import io
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ....core.errors import UserError
from ..image_transform import MOST_PIXELS, PicturePreparation

FORMATS = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm", ".pfm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""The formats that are read, by Pillow's names, with the suffixes of their files. A file's content has to be of one of
them, whatever its suffix: some of Pillow's other decoders start programs (EPS runs Ghostscript)."""
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
FITS = ("resize", "crop", "pad")
_MOST_REDUCED = 1 << 28
"""Of a JPEG file that is decoded at a part of its size: phones take pictures of 200 million pixels."""
_BOUND = threading.Lock()
"""Held while the bound on pixels that Pillow has for a whole process is another."""


@dataclass(frozen=True)
class ImageTransform:
    """The size and channels to which every image is brought.

    Attributes:
        size: (H, W) in pixels; None: as it is.
        fit: how: ``resize`` stretches, ``crop`` scales and cuts what stands out, ``pad`` scales and fills with black.
        mode: ``L`` (grey) or ``RGB``; None: grey stays grey, all others become RGB.
    """

    size: tuple[int, int] | None = None
    fit: str = "resize"
    mode: str | None = None

    @classmethod
    def of(cls, preparation: PicturePreparation) -> ImageTransform:
        """The transform that gave the images of a data set their form."""
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
            UserError: it is damaged, no image, has more than 8 bits per channel or absurdly many pixels.
        """
        from PIL import ImageOps, UnidentifiedImageError

        try:
            with _opened(content) as image:
                self._bound(image, where)
                if (bits := _bits(image, content)) > 8:
                    raise UserError(
                        f"{where} has {bits} bits per channel ({image.format}, mode {image.mode}), of which Pillow "
                        "would drop the lower ones; convert it to 8 bits with a scale of your choice, or store uint16 "
                        "arrays for `hpcdd prepare npz`"
                    )
                mode = self.mode or ("L" if image.mode in ("1", "L") else "RGB")
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                pixels = np.asarray(self._fitted(image.convert(mode)))
        except UserError:
            raise
        except UnidentifiedImageError as error:
            raise UserError(
                f"{where} can't be read as an image: it is damaged, or in none of the formats {', '.join(FORMATS)}"
            ) from error
        except Exception as error:  # its many decoders raise any exception for a damaged file
            raise UserError(f"{where} can't be read as an image: {error}") from error
        return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def _bound(self, image: Any, where: str) -> None:
        """Refuses absurdly many pixels before any is decoded.

        A JPEG file that is to become smaller is decoded at 1/2, 1/4 or 1/8 of its size where it has too many. All of a
        progressive one would be in memory even so.
        """
        claimed = f"{image.width} x {image.height}"
        pixels = image.width * image.height
        reducible = image.format in ("JPEG", "MPO") and "progressive" not in image.info and pixels <= _MOST_REDUCED
        if pixels > MOST_PIXELS and reducible and self.size is not None:
            longest = max(self.size)  # of either axis: the file may say that it is to be turned
            image.draft(None, (longest, longest))
        if image.width * image.height > MOST_PIXELS:
            remedy = "make it smaller, or use a smaller --size" if self.size else "use --size H W, or make it smaller"
            raise UserError(
                f"{where} claims to have {claimed} pixels, but at most {MOST_PIXELS:,} are decoded ({_MOST_REDUCED:,} "
                f"of a JPEG file that is not progressive, where --size is small enough); {remedy}"
            )

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


def _opened(content: bytes) -> Any:
    """A Pillow image of which only the header is read. Its bound on pixels is lifted for JPEG; ours follows."""
    from PIL import Image

    with _BOUND:
        bound = Image.MAX_IMAGE_PIXELS
        if content.startswith(b"\xff\xd8\xff"):
            Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(io.BytesIO(content), formats=tuple(FORMATS))
        finally:
            Image.MAX_IMAGE_PIXELS = bound


def _bits(image: Any, content: bytes) -> int:
    """Bits of a channel as the file stores it, of a Pillow image that is not loaded yet.

    Pillow decodes channels of 16 bits to the upper 8 where there are several, whatever range their values have.
    """
    stored = image.tile[0].args if image.tile else ""
    if image.format == "PNG":
        return 16 if ";16" in str(stored) else 8
    if image.format == "TIFF":
        return max(map(int, image.tag_v2.get(258, (1,))))  # BitsPerSample
    if image.format == "PPM" and image.mode in ("RGB", "I"):
        return int(stored[1]).bit_length() if isinstance(stored, tuple) else 16 if image.mode == "I" else 8
    if image.format == "JPEG2000":
        components = content[content.find(b"\xff\x4f\xff\x51") + 42 :]  # of the codestream's SIZ: ISO 15444-1, A.5.1
        return 1 + max(bits & 0x7F for bits in components[: 3 * len(image.getbands()) : 3])
    return 16 if image.mode.startswith("I;16") else 32 if image.mode in ("I", "F") else 8


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares ``--size`` and ``--fit``."""
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="pixels of every image (default: all must be of one size)"
    )
    parser.add_argument(
        "--fit",
        choices=FITS,
        help="with --size: stretch to it (resize), scale, then cut off the excess (crop), scale and fill up with black "
        "(pad); default: resize",
    )


def transform_from_options(size: list[int] | None, fit: str | None, mode: str | None = None) -> ImageTransform:
    """The transform that the options describe.

    Raises:
        UserError: a size that is not positive or absurd, or ``--fit`` without ``--size``.
    """
    if size is None:
        if fit is not None:
            raise UserError(f"--fit {fit} applies to the size of --size; give --size H W as well")
        return ImageTransform(None, FITS[0], mode)
    if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
        raise UserError(f"--size is {size[0]} {size[1]}; use positive numbers, at most {MOST_PIXELS:,} pixels in all")
    return ImageTransform((size[0], size[1]), fit or FITS[0], mode)
