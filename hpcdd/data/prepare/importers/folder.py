"""Images in folders named after their classes; a folder or an archive (TF-Flowers, CIFAR as JPEG files)."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from . import classes
from .archives import open_tree
from .decode_pool import DecodePool
from .image_files import SUFFIXES, add_size_arguments, transform_from_options
from .image_source import ImageSource

SUMMARY = "images in folders named after their classes: CLASS/FILE, or train/CLASS/FILE and test/CLASS/FILE"
EXAMPLES = (
    "hpcdd prepare folder flower_photos.tgz flowers.h5 --size 180 180 --fit crop --test-fraction 0.2 --grid 2,2",
    "hpcdd prepare folder cifar10 cifar10.h5 --coarse 2",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of this kind."""
    add_size_arguments(parser)
    colour = parser.add_mutually_exclusive_group()
    for option, mode in (("grey", "L"), ("rgb", "RGB")):
        colour.add_argument(
            f"--{option}",
            dest="mode",
            action="store_const",
            const=mode,
            help=f"convert all images to {option.upper() if mode == 'RGB' else option} (default: like the first image)",
        )


def read(source: Path, pool: DecodePool, *, size: list[int] | None, fit: str | None, mode: str | None) -> ImageSource:
    """Reads ``CLASS/**/FILE`` or ``SPLIT/CLASS/**/FILE``, see :func:`hpcdd.data.prepare.importers.classes.read`.

    Args:
        source: the folder, or a tar or zip archive of it.
        pool: how files are read.
        size, fit, mode: see :class:`hpcdd.data.prepare.importers.image_files.ImageTransform`.

    Returns:
        uint8 images (n, 1, H, W) or (n, 3, H, W), decoded when they are asked for, and the classes by alphabet.

    Raises:
        UserError: splits or classes are missing or differ; here or on decoding, an image that is damaged or of
            another size than the first.
    """
    transform = transform_from_options(size, fit, mode)
    imported = classes.read(open_tree(source), SUFFIXES, "images", transform.decode, pool)
    return replace(imported, preparation=transform.preparation(imported.splits["train"].image_shape))
