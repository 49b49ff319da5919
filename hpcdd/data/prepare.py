"""``hpcdd prepare``: from a data set as its publisher ships it to a dataset file."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from .coarse import misfit
from .importers import IMPORTERS
from .write import Split, check_out, write_dataset

EXAMPLE = """example, the data set inside the package:
  hpcdd prepare idx /usr/share/datasets/fashion-mnist OUT.h5 --train-samples 10000 --test-samples 2000 \\
      --name Fashion-MNIST-12k --compression 9 --licence MIT"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    kinds = "; ".join(f"{kind}: {importer.summary}" for kind, importer in IMPORTERS.items())
    parser.add_argument("kind", choices=sorted(IMPORTERS), help=kinds)
    parser.add_argument("source", type=Path, help="file or folder as its publisher ships it")
    parser.add_argument("out", type=Path, help="dataset file to make (.h5)")
    parser.add_argument("--name", help="name of the data set (default: the source's)")
    parser.add_argument("--class-names", help="names of the classes, separated by commas, if the source has none")
    parser.add_argument("--source-note", help="where the data set comes from (default: the source's path)")
    parser.add_argument("--licence", default="", help="its licence")
    for split in ("train", "test"):
        parser.add_argument(
            f"--{split}-samples",
            type=int,
            metavar="N",
            help=f"take the first N samples of the {split} split with all classes alike (default: all)",
        )
    parser.add_argument(
        "--coarse",
        metavar="B",
        help="store also the images averaged in blocks of B pixels along each axis (2), or of B1,B2,... (2,2): with "
        "decomposition.coarse and that block a rank reads these (default: it averages the images as it reads them)",
    )
    parser.add_argument(
        "--compression", type=int, default=4, choices=range(10), metavar="0-9", help="gzip level (default: 4; 0: none)"
    )


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """Reads, writes and prints what was made.

    Raises:
        UserError: the source is not what it should be; nothing is written then.
    """
    block = None if arguments.coarse is None else _block(arguments.coarse)
    check_out(arguments.out)
    splits, names = IMPORTERS[arguments.kind].read(arguments.source)
    for split, wanted in (("train", arguments.train_samples), ("test", arguments.test_samples)):
        if wanted is not None:
            splits[split] = _balanced(splits[split], split, wanted)
    if block is not None:
        spatial = splits["train"].image_shape[1:]
        block = block * len(spatial) if len(block) == 1 else block
        if fault := misfit(block, spatial):
            raise UserError(f"--coarse is {arguments.coarse}: {fault}")
    num_classes = 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
    if arguments.class_names:
        names = tuple(name.strip() for name in arguments.class_names.split(","))
    names = names or tuple(map(str, range(num_classes)))
    if len(names) < num_classes:
        raise UserError(f"--class-names lists {len(names)} names, but the labels go up to {num_classes - 1}")
    info = write_dataset(
        arguments.out,
        splits,
        name=arguments.name or arguments.source.name,
        class_names=names,
        source=arguments.source_note or str(arguments.source),
        licence=arguments.licence,
        command=shlex.join(["hpcdd", *argv]),
        compression=arguments.compression,
        coarse=block,
    )
    print(
        f"{arguments.out}: {info.name}, images {info.image_shape} {info.dtype}, {arguments.out.stat().st_size:,} bytes"
    )
    for split, labels in info.labels.items():
        counts = np.bincount(labels, minlength=info.num_classes)
        per_class = ", ".join(f"{name} {count}" for name, count in zip(info.class_names, counts, strict=True))
        print(f"  {split}: {len(labels):,} samples ({per_class})")
    if info.coarse is not None:
        print(f"  coarse images {info.coarse_image_shape}, averaged in blocks of {' x '.join(map(str, info.coarse))}")


def _block(text: str) -> tuple[int, ...]:
    """The block of pixels behind ``--coarse``: one number for all axes, or one per axis."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise UserError(f"--coarse is {text!r}; use one positive integer (2), or one per spatial axis (2,2)") from error


def _balanced(split: Split, name: str, wanted: int) -> Split:
    """The first samples of a split, in their order, such that each class has ``wanted / K`` of them."""
    classes = np.unique(split.labels)
    each, rest = divmod(wanted, len(classes))
    if rest or each < 1:
        raise UserError(f"--{name}-samples is {wanted}; with {len(classes)} classes use a multiple of {len(classes)}")
    rows = [np.flatnonzero(split.labels == label)[:each] for label in classes]
    fewest = min(len(r) for r in rows)
    if fewest < each:
        raise UserError(f"--{name}-samples is {wanted}, {each} per class, but a class has {fewest} in the source")
    chosen = np.sort(np.concatenate(rows))
    images = np.concatenate(list(split.blocks()))
    return Split.from_array(images[chosen], split.labels[chosen])
