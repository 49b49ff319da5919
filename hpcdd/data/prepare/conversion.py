"""``hpcdd prepare``: from a data set as its publisher ships it to a dataset file, and a picture of what it holds."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...core.files import readable
from ...core.texts import printable
from ...decomposition.boxes import Decomposition, by
from ..chunks import chunk_shape
from ..coarse import misfit
from ..format import DatasetInfo
from ..writing import Split, check_out, write_dataset
from . import contact_sheet
from .importers import IMPORTERS
from .importers.decode_pool import DecodePool
from .importers.file_tree import stem
from .importers.image_source import ImageSource
from .request import PrepareRequest
from .selection import balanced, divided

_LONGEST_NAME = 200
"""Bytes; a temporary file next to the file has a longer one."""


def prepare(
    kind: str,
    source: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> DatasetInfo:
    """Makes a dataset file, and a contact sheet next to it, like ``hpcdd prepare``; in one process.

    Args:
        kind: kind of the source: ``cifar10``, ``cifar100``, ``faces``, ``folder``, ``idx``, ``nifti``, ``npy``, ``npz``
            or ``phantom``.
        source: path of a file or folder; None for ``phantom``, which computes its images.
        out: path of the dataset file.
        options: options of the kind, by their names on the command line with underscores: ``{"size": [64, 64]}``; see
            ``hpcdd prepare KIND --help``.
        settings: further fields of :class:`hpcdd.data.prepare.request.PrepareRequest`.

    Returns:
        The description of the file.

    Raises:
        UserError: the settings or the source are invalid; nothing is written.
    """
    if kind not in IMPORTERS:
        raise UserError(f"prepare: {kind!r} is not a kind of source; use one of {', '.join(IMPORTERS)}")
    defaults = argparse.ArgumentParser()
    IMPORTERS[kind].add_arguments(defaults)
    known = vars(defaults.parse_args([]))
    if unknown := [name for name in options or {} if name not in known]:
        raise UserError(
            f"prepare: {unknown[0]!r} is not an option of {kind}; its options are {', '.join(known) or 'none'}"
        )
    where = None if source is None else Path(source)
    return run(PrepareRequest(kind=kind, source=where, out=Path(out), options={**known, **(options or {})}, **settings))


def run(request: PrepareRequest) -> DatasetInfo:
    """Reads, writes and prints what was made.

    Raises:
        UserError: the options or the source are not what they should be; nothing is written then.
    """
    with _no_folder_left(request.out):
        return _run(request)


def _run(request: PrepareRequest) -> DatasetInfo:
    source, out = request.source, request.out
    block = None if request.coarse is None else _numbers("coarse", request.coarse, least=None)
    grid = None if request.grid is None else _numbers("grid", request.grid)
    overlap = (0,) if request.overlap is None else _numbers("overlap", request.overlap, least=0)
    _check(request)
    pool = DecodePool(request.skip_bad, seed=request.seed)
    if request.threads is not None:
        pool.threads = request.threads
    imported = IMPORTERS[request.kind].read(source, pool, **request.options)
    splits = divided(imported.splits, request.test_fraction, request.validation_fraction, request.seed)
    for split, wanted in (("train", request.train_samples), ("test", request.test_samples)):
        if wanted is not None:
            splits[split] = balanced(splits[split], split, wanted)
    spatial = splits["train"].image_shape[1:]
    if block is not None:
        block = block * len(spatial) if len(block) == 1 else block
        if fault := misfit(block, spatial):
            raise UserError(f"--coarse is {request.coarse}: {fault}")
    decomposition = None if grid is None else _decomposition(spatial, grid, overlap)
    chunk = None
    if decomposition is not None:
        chunk = chunk_shape(decomposition, np.dtype(splits["train"].dtype).itemsize)
    names, splits, named = _classes(request, imported, splits)
    seen: list[str] = []
    with _progress(sum(len(part.labels) for part in splits.values())) as advance:
        info = write_dataset(
            out,
            splits,
            name=_name(request, imported),
            class_names=names,
            source=_origin(request, imported),
            licence=request.licence,
            preparation=imported.preparation,
            command=request.command,
            compression=request.compression,
            coarse=block,
            chunk=chunk,
            report=seen.append,
            progress=advance,
        )
    sheet = out.with_suffix(".png")
    contact_sheet.write(sheet, info, decomposition, synthetic=imported.synthetic)
    _summarize(out, info, chunk, [*imported.notes, *filter(None, [named]), *seen, *pool.notes()])
    print(f"  samples of each class: {printable(readable(str(sheet)))}")
    return info


@contextlib.contextmanager
def _no_folder_left(out: Path) -> Iterator[None]:
    """Takes the folders away that were made for a file, where it isn't made after all."""
    try:
        missing = [folder for folder in out.absolute().parents if not folder.exists()]
    except OSError:  # which is reported when the name is checked
        missing = []
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # it was not made, or something is in it
                folder.rmdir()
        raise


def _check(request: PrepareRequest) -> None:
    """What can be wrong before the source is read."""
    source, out = request.source, request.out
    if source is not None:
        try:
            source.exists()
        except OSError as error:  # too long a name, for one
            raise UserError(f"{source} can't be a file or folder: {error.strerror}") from error
    if (size := len(os.fsencode(out.name))) > _LONGEST_NAME:
        raise UserError(f"{out} has a name of {size} bytes; use at most {_LONGEST_NAME}")
    check_out(out)
    check_out(out.with_suffix(".png"))
    if out.suffix.lower() == ".png":
        raise UserError(f"{out} is the name of an image; name a dataset file, such as {out.with_suffix('.h5')}")
    if source is not None and out.exists() and source.exists() and out.samefile(source):
        raise UserError(f"{out} is the source itself; write to another file")
    if request.overlap is not None and request.grid is None:
        raise UserError(f"--overlap {request.overlap} applies to the boxes of a grid; give --grid as well")
    for option, least in (("threads", 1), ("seed", 0)):
        value = getattr(request, option)
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
        return Decomposition.grid(spatial, grid, overlap[0] if len(overlap) == 1 else overlap)
    except ValueError as error:
        message = str(error)
        for key in ("grid", "overlap"):
            message = message.replace(f"decomposition.{key}", f"--{key}")
        raise UserError(message) from error


def _name(request: PrepareRequest, imported: ImageSource) -> str:
    source = stem(request.source.absolute()) if request.source is not None else request.kind
    name = request.name or imported.name or source
    return f"{name} (synthetic)" if imported.synthetic and "synthetic" not in name else name


def _origin(request: PrepareRequest, imported: ImageSource) -> str:
    """Where the data set comes from; a note does not hide that images were computed."""
    if imported.synthetic and request.source_note:
        return f"{imported.source}; {request.source_note}"
    return str(request.source_note or imported.source or request.source)


def _classes(
    request: PrepareRequest, imported: ImageSource, splits: Mapping[str, Split]
) -> tuple[tuple[str, ...], dict[str, Split], str]:
    """Names of the classes, splits whose labels count these from 0, and what a user should know of it.

    Raises:
        UserError: names that are not those of the source's classes, each once; or a label that is negative.
    """
    numbers: list[int] = []
    if not imported.class_names:
        numbers = np.unique(np.concatenate([part.labels for part in splits.values()])).tolist()
        if numbers[0] < 0:
            raise UserError(
                f"{request.source} holds the label {numbers[0]}; labels must be class numbers of 0 or more, so leave "
                "out samples without a class"
            )
    source_names = imported.class_names or tuple(map(str, numbers))
    names, order = source_names, list(range(len(source_names)))
    if request.class_names is not None:
        listed = [name.strip() for name in request.class_names.split(",")]
        named = _numbered_names(listed, numbers) if numbers else _ordered_names(listed, source_names)
        names, order = tuple(name for name, _ in named), [label for _, label in named]
    # From the labels of the source to the position of their class among the names.
    source_labels, positions = np.asarray(numbers or range(len(source_names))), np.argsort(order)
    renumbered = {
        split: dataclasses.replace(part, labels=positions[np.searchsorted(source_labels, part.labels)])
        for split, part in splits.items()
    }
    note = ""
    if numbers and numbers[0] + len(numbers) <= numbers[-1] and request.class_names is None:
        raise UserError(
            f"{request.source}: its labels go from {numbers[0]} to {numbers[-1]}, but only {len(numbers)} of these "
            f"numbers occur ({_some(numbers)}); if each of these is a class, name them with --class-names"
        )
    if numbers != list(range(len(numbers))):
        note = f"the source's labels {_some(numbers)} become classes 0 to {len(numbers) - 1}"
    return names, renumbered, note


def _some(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def _numbered_names(listed: Sequence[str], numbers: Sequence[int]) -> list[tuple[str, int]]:
    """(name, position) of the classes of a source that numbers them, in ascending order."""
    _check_names(listed, listed)
    if len(listed) != len(numbers):
        raise UserError(
            f"--class-names lists {len(listed)} names, but the source has {len(numbers)} labels ({_some(numbers)}); "
            "name one for each label"
        )
    return [(name, position) for position, name in enumerate(listed)]


def _ordered_names(listed: Sequence[str], source_names: Sequence[str]) -> list[tuple[str, int]]:
    """(name, position in the source) of the classes of a source that names them, each listed as NAME or OLD=NEW."""
    pairs = []
    for entry in listed:
        old, equals, new = (entry, "", "") if entry in source_names else entry.partition("=")
        pairs.append((old.strip(), new.strip() if equals else old.strip()))
    _check_names([old for old, _ in pairs], listed)
    _check_names([new for _, new in pairs], listed)
    unknown = [old for old, _ in pairs if old not in source_names]
    missing = [name for name in source_names if name not in dict(pairs)]
    if unknown or missing:
        faults = [
            f"{', '.join(names)} {what}"
            for names, what in ((unknown[:5], "is not a class of the source"), (missing[:5], "is missing"))
            if names
        ]
        raise UserError(
            f"--class-names: {' and '.join(faults)}; the source has {', '.join(source_names[:20])}; list each of these "
            "once, in the order the classes should have, as NAME or OLD=NEW"
        )
    return [(new, source_names.index(old)) for old, new in pairs]


def _check_names(names: Sequence[str], listed: Sequence[str]) -> None:
    if "" in names:
        raise UserError(f"--class-names is {','.join(listed)!r}, which holds an empty name; write A,B,C")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--class-names lists {twice!r} twice; each class needs its own name")


@contextlib.contextmanager
def _progress(samples: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; gives a function to be called with the number of samples read."""
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
    print(f"{readable(str(out))}: {info.name}, images {info.image_shape} {info.dtype}, {out.stat().st_size:,} bytes")
    for split, labels in info.labels.items():
        counts = np.bincount(labels, minlength=info.num_classes)
        per_class = ", ".join(f"{name} {count}" for name, count in zip(info.class_names, counts, strict=True))
        print(f"  {split}: {len(labels):,} samples ({per_class})")
    for note in notes:
        print(f"  {printable(note)}")
    if chunk is not None:
        print(f"  stored in chunks of {by(chunk)} pixels")
    if info.coarse is not None:
        print(f"  coarse images {info.coarse_image_shape}, averaged in blocks of {by(info.coarse)}")
