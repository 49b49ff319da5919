"""Images in folders named after their classes, of one size and one kind (grey or colour)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ...errors import UserError
from ..write import Split

_BLOCK = 2048
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})


def read(source: Path) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Reads ``{train,validation,test}/CLASS/FILE``; ``validation`` is optional. Files are sorted by name.

    Args:
        source: the folder that holds the splits.

    Returns:
        Splits of uint8 images (n, 1, H, W) or (n, 3, H, W), decoded when they are written; the names of the
        classes in alphabetical order.

    Raises:
        UserError: splits or classes are missing or differ; on decoding, an image that is damaged or of another size.
    """
    present = [split for split in ("train", "validation", "test") if (source / split).is_dir()]
    if not {"train", "test"} <= set(present):
        raise UserError(f"{source} must hold the folders train and test, each with one folder of images per class")
    classes = {split: sorted(p.name for p in (source / split).iterdir() if p.is_dir()) for split in present}
    names = classes["train"]
    for split in present:
        if classes[split] != names:
            raise UserError(f"{source / split} has the classes {classes[split]}, but {source / 'train'} has {names}")
    if len(names) < 2:
        raise UserError(f"{source / 'train'} holds {len(names)} class folders; a classifier needs two or more")
    splits = {}
    shape: tuple[int, ...] | None = None
    for split in present:
        files = [
            (path, label)
            for label, name in enumerate(names)
            for path in sorted((source / split / name).iterdir())
            if path.suffix.lower() in _SUFFIXES
        ]
        if not files:
            raise UserError(f"{source / split} holds no images ({', '.join(sorted(_SUFFIXES))})")
        shape = shape or decode(files[0][0]).shape
        splits[split] = _split(files, shape)
    return splits, tuple(names)


def decode(path: Path) -> npt.NDArray[Any]:
    """One image as uint8 (1, H, W) if it is grey, else (3, H, W) RGB.

    Raises:
        UserError: it is damaged or no image.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would clip them to 8 bits
                raise UserError(f"{path} has more than 8 bits per pixel (mode {image.mode}); convert it to 8 bits")
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not an image that can be read: {error}") from error
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _split(files: list[tuple[Path, int]], shape: tuple[int, ...]) -> Split:
    def fitting(path: Path) -> npt.NDArray[Any]:
        image = decode(path)
        if image.shape != shape:
            raise UserError(
                f"{path} has the shape (channels, height, width) {image.shape}, but the first image {shape}"
            )
        return image

    def blocks() -> Iterator[npt.NDArray[Any]]:
        with ThreadPoolExecutor() as pool:  # Pillow decodes without holding Python's global lock
            for start in range(0, len(files), _BLOCK):
                yield np.stack(list(pool.map(fitting, [path for path, _ in files[start : start + _BLOCK]])))

    return Split(np.array([label for _, label in files]), shape, "uint8", blocks)
