"""``hpcdd prepare``: from a data set as its publisher ships it to a dataset file, and a picture of what it holds."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..decomposition import Decomposition, by
from ..errors import UserError
from . import contact_sheet, options
from .chunks import chunk_shape
from .coarse import misfit
from .format import DatasetInfo
from .importers import IMPORTERS
from .importers.collection import Collection, Imported
from .importers.tree import stem
from .importers.work import Work
from .selection import balanced, divided
from .write import check_out, write_dataset

_LONGEST_NAME = 200
"""Bytes; a temporary file beside the file has a longer one."""


def run(words: Sequence[str]) -> None:
    """Reads, writes and prints what was made.

    Args:
        words: what follows ``prepare`` on the command line.

    Raises:
        UserError: the options or the source are not what they should be; nothing is written then.
        SystemExit: after ``--help``.
    """
    arguments, own = options.parse(words)
    with _no_folder_left(arguments.out):
        _run(words, arguments, own)


def _run(words: Sequence[str], arguments: argparse.Namespace, own: Mapping[str, Any]) -> None:
    source, out = arguments.source, arguments.out
    block = None if arguments.coarse is None else _numbers("coarse", arguments.coarse, least=None)
    grid = None if arguments.grid is None else _numbers("grid", arguments.grid)
    overlap = (0,) if arguments.overlap is None else _numbers("overlap", arguments.overlap, least=0)
    _check(arguments)
    work = Work(arguments.skip_bad, seed=arguments.seed)
    if arguments.threads is not None:
        work.threads = arguments.threads
    imported = IMPORTERS[arguments.kind].read(source, work, **own)
    splits = divided(imported.splits, arguments.test_fraction, arguments.validation_fraction, arguments.seed)
    for split, wanted in (("train", arguments.train_samples), ("test", arguments.test_samples)):
        if wanted is not None:
            splits[split] = balanced(splits[split], split, wanted)
    spatial = splits["train"].image_shape[1:]
    if block is not None:
        block = block * len(spatial) if len(block) == 1 else block
        if fault := misfit(block, spatial):
            raise UserError(f"--coarse is {arguments.coarse}: {fault}")
    decomposition = None if grid is None else _decomposition(spatial, grid, overlap)
    chunk = None
    if decomposition is not None:
        chunk = chunk_shape(decomposition, np.dtype(splits["train"].dtype).itemsize)
    names = _class_names(arguments, imported, splits)
    with _progress(sum(len(part.labels) for part in splits.values())) as advance:
        info = write_dataset(
            out,
            {split: part.to_split(advance) for split, part in splits.items()},
            name=_name(arguments, imported),
            class_names=names,
            source=_origin(arguments, imported),
            licence=arguments.licence,
            preparation=imported.preparation,
            command=shlex.join(["hpcdd", "prepare", *words]),
            compression=arguments.compression,
            coarse=block,
            chunk=chunk,
        )
    sheet = out.with_suffix(".png")
    contact_sheet.write(sheet, info, decomposition, synthetic=imported.synthetic)
    _summarize(out, info, chunk, [*imported.notes, *filter(None, [work.report()])])
    print(f"  samples of each class: {sheet}")


@contextlib.contextmanager
def _no_folder_left(out: Path) -> Iterator[None]:
    """Takes the folders away that were made for a file, where it isn't made after all."""
    try:
        missing = [folder for folder in out.absolute().parents if not folder.exists()]
    except OSError:  # which is told when the name is checked
        missing = []
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # it was not made, or something is in it
                folder.rmdir()
        raise


def _check(arguments: argparse.Namespace) -> None:
    """What can be wrong before the source is read."""
    source, out = arguments.source, arguments.out
    if source is not None:
        try:
            source.exists()
        except OSError as error:  # too long a name, for one
            raise UserError(f"{source} can't be a file or folder: {error.strerror}") from error
    if (size := len(os.fsencode(out.name))) > _LONGEST_NAME:
        raise UserError(f"{out} has a name of {size} bytes; use {_LONGEST_NAME} at most")
    check_out(out)
    check_out(out.with_suffix(".png"))
    if out.suffix.lower() == ".png":
        raise UserError(f"{out} is the name of a picture; name a dataset file, such as {out.with_suffix('.h5')}")
    if source is not None and out.exists() and source.exists() and out.samefile(source):
        raise UserError(f"{out} is the source itself; name another file to write")
    if arguments.overlap is not None and arguments.grid is None:
        raise UserError(f"--overlap {arguments.overlap} says how far the boxes of a grid reach; name it with --grid")
    for option, least in (("threads", 1), ("seed", 0)):
        value = getattr(arguments, option)
        if value is not None and value < least:
            raise UserError(f"--{option} is {value}; use {least} or more")


def _numbers(option: str, text: str, least: int | None = 1) -> tuple[int, ...]:
    """The integers behind an option: one number for all axes, or one per axis; None: the smallest is not checked."""
    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or (least is not None and min(numbers) < least):
        what = "positive integer" if least != 0 else "integer of 0 or more"
        raise UserError(f"--{option} is {text!r}; use one {what} (2), or one per spatial axis (2,2)")
    return numbers


def _decomposition(spatial: Sequence[int], grid: tuple[int, ...], overlap: tuple[int, ...]) -> Decomposition:
    grid = grid * len(spatial) if len(grid) == 1 else grid
    try:
        return Decomposition.from_grid(spatial, grid, overlap[0] if len(overlap) == 1 else overlap)
    except ValueError as error:
        message = str(error)
        for key in ("grid", "overlap"):
            message = message.replace(f"decomposition.{key}", f"--{key}")
        raise UserError(message) from error


def _name(arguments: argparse.Namespace, imported: Imported) -> str:
    name: str = arguments.name or imported.name or stem(arguments.source.absolute())
    return f"{name} (synthetic)" if imported.synthetic and "synthetic" not in name else name


def _origin(arguments: argparse.Namespace, imported: Imported) -> str:
    """Where the data set comes from; a note does not hide that images were computed."""
    if imported.synthetic and arguments.source_note:
        return f"{imported.source}; {arguments.source_note}"
    return str(arguments.source_note or imported.source or arguments.source)


def _class_names(
    arguments: argparse.Namespace, imported: Imported, splits: Mapping[str, Collection]
) -> tuple[str, ...]:
    num_classes = 1 + max(int(part.labels.max(initial=0)) for part in splits.values())
    names = imported.class_names
    if arguments.class_names:
        names = tuple(name.strip() for name in arguments.class_names.split(","))
    if not names:
        if num_classes > (samples := sum(len(part.labels) for part in splits.values())):
            raise UserError(
                f"{arguments.source}: its labels go up to {num_classes - 1}, but it has {samples} samples; "
                "number the classes from 0"
            )
        names = tuple(map(str, range(num_classes)))
    if len(names) < num_classes:
        raise UserError(f"--class-names lists {len(names)} names, but the labels go up to {num_classes - 1}")
    return names


@contextlib.contextmanager
def _progress(samples: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; gives a function that hears of the number of samples read."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("samples", total=samples)
        yield lambda more: bar.advance(task, more)


def _summarize(out: Path, info: DatasetInfo, chunk: Sequence[int] | None, notes: Sequence[str]) -> None:
    print(f"{out}: {info.name}, images {info.image_shape} {info.dtype}, {out.stat().st_size:,} bytes")
    for split, labels in info.labels.items():
        counts = np.bincount(labels, minlength=info.num_classes)
        per_class = ", ".join(f"{name} {count}" for name, count in zip(info.class_names, counts, strict=True))
        print(f"  {split}: {len(labels):,} samples ({per_class})")
    for note in notes:
        print(f"  {note}")
    if chunk is not None:
        print(f"  stored in chunks of {by(chunk)} pixels")
    if info.coarse is not None:
        print(f"  coarse images {info.coarse_image_shape}, averaged in blocks of {by(info.coarse)}")
