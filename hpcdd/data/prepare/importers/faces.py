"""The extended Yale face database B: PGM files whose names give the subject."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ....core.errors import UserError
from .archives import open_tree
from .decode_pool import DecodePool
from .image_files import add_size_arguments, transform_from_options
from .image_source import ImageSource

SUMMARY = "the extended Yale face database B: yaleB01/yaleB01_P00A+000E+00.pgm and so on"
EXAMPLES = ("hpcdd prepare faces CroppedYale.zip faces.h5 --test-fraction 0.2 --validation-fraction 0.1 --grid 2,2",)
_NAME = re.compile(r"(?P<subject>yaleB\d+)_P\d+(?P<light>A[+-]\d+E[+-]\d+|_Ambient)\.pgm(?P<bad>\.bad)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of this kind."""
    add_size_arguments(parser)


def read(source: Path, pool: DecodePool, *, size: list[int] | None, fit: str | None) -> ImageSource:
    """Reads all faces, of any folder; ambient light, and what the publisher calls ``.bad``, is counted and left out.

    Args:
        source: the folder, or a tar or zip archive of it.
        pool: how files are read.
        size, fit: see :class:`hpcdd.data.prepare.importers.image_files.ImageTransform`.

    Returns:
        uint8 images (n, 1, H, W), not split; a class for each subject.

    Raises:
        UserError: there are no such files, or they show one subject only.
    """
    transform = transform_from_options(size, fit, "L")
    tree = open_tree(source)
    faces = []
    for name in tree.files:
        match = _NAME.fullmatch(name.rpartition("/")[2])
        if match is None:
            tree.unused.add(name, "not named as a face")
        elif match["bad"]:
            tree.unused.add(name, "called bad by the publisher")
        elif match["light"] == "_Ambient":
            tree.unused.add(name, "ambient light")
        else:
            faces.append((match["subject"], name))
    subjects = sorted({subject for subject, _ in faces})
    if len(subjects) < 2:
        raise UserError(
            f"{source} holds faces of {len(subjects)} subjects; it must contain folders yaleB01, yaleB02, ... with "
            "files such as yaleB01_P00A+000E+00.pgm"
        )
    labels = [subjects.index(subject) for subject, _ in faces]
    images = pool.collect(tree, [name for _, name in faces], labels, transform.decode)
    preparation = transform.preparation(images.image_shape)
    return ImageSource(
        {"train": images}, tuple(subjects), "extended Yale B", notes=tree.unused.lines(), preparation=preparation
    )
