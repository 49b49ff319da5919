"""Files in folders named after their classes, with or without folders named after the splits around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ....core.errors import UserError
from ...writing import Split
from .decode_pool import DecodePool, Decoder
from .file_tree import ArchiveReader
from .image_source import ImageSource
from .splits import by_split, split_of
from .unused_files import suffix_of

_DOCUMENTS = frozenset(
    ".txt .md .rst .csv .tsv .json .jsonl .xml .yaml .yml .html .htm .pdf .log .mat .py .ipynb .sh .h5 .hdf5".split()  # noqa: SIM905
)
"""What lies next to data sets: a folder of nothing else is no class."""
_ALSO_CLASSES = ("train", "valid")
"""Names of splits by which classes are called as well: of vehicles, or next to ``invalid``."""


def read(tree: ArchiveReader, suffixes: Iterable[str], what: str, decode: Decoder, pool: DecodePool) -> ImageSource:
    """Reads ``SPLIT/CLASS/**/FILE`` or ``CLASS/**/FILE``, also where all of it lies in further folders.

    A class is a folder with all that is below it. Splits are folders named as
    :mod:`hpcdd.data.prepare.importers.splits` says.

    Args:
        tree: the source.
        suffixes: of the files that are meant, in lower case; others are counted and not used.
        what: these files are, in messages.
        decode, pool: see :meth:`DecodePool.collect`.

    Returns:
        The splits that are there, the classes in alphabetical order, and a note of all that is not used.

    Raises:
        UserError: no such files; fewer than two classes; a class or split of which no file can be used, or whose
            place is unclear; classes that differ between splits; a bad file.
    """
    endings = tuple(suffixes)
    samples = [name for name in tree.files if name.lower().endswith(endings)]
    others = [name for name in tree.files if not name.lower().endswith(endings)]
    for name in others:
        tree.unused.add(name, f"no suffix of {what}")
    if not samples:
        raise UserError(
            "; ".join([f"{tree.path} holds no {what} ({', '.join(sorted(endings))})", *tree.unused.lines()])
        )
    arranged = _arranged(tree, what, samples, others)
    folders_by_split = {split: _without("", folders) for split, folders in arranged.items()}
    used = {name for folders in folders_by_split.values() for names in folders.values() for name in names}
    for name in samples:
        if name not in used:
            tree.unused.add(name, "in no folder of a class")
    names = sorted(folders_by_split.get("train", {}))
    _check(tree, what, folders_by_split, names)
    splits: dict[str, Split] = {}
    for split, folders in folders_by_split.items():
        files = [name for label in names for name in folders[label]]
        labels = [number for number, label in enumerate(names) for _ in folders[label]]
        splits[split] = pool.collect(tree, files, labels, decode)
    shapes = {key: part.image_shape for key, part in splits.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"{tree.path}: {what} differ between splits: {shapes} (channels first); set one with --size")
    return ImageSource(splits, tuple(names), notes=tree.unused.lines())


_Folders = dict[str, list[str]]
"""Names of files by the child of a folder in which they are, at whatever depth; those in the folder itself by ""."""


def _grouped(names: Iterable[str], folder: str) -> _Folders:
    """Names by child of a folder, which is given as what all of them begin with."""
    groups: _Folders = {}
    for name in names:
        child, slash, _ = name[len(folder) :].partition("/")
        groups.setdefault(child if slash else "", []).append(name)
    return groups


def _without(child: str, folders: _Folders) -> _Folders:
    return {name: files for name, files in folders.items() if name != child}


def _arranged(tree: ArchiveReader, what: str, samples: Sequence[str], others: Sequence[str]) -> dict[str, _Folders]:
    """The folders of classes by split; where the source is not split, all are of ``train``."""
    around, inside = "", _grouped(samples, "")
    while len(lone := _without("", inside)) == 1:
        (child,) = lone
        below = _grouped(lone[child], f"{around}{child}/")
        if split_of(child) or below.keys() == {""}:
            break
        _check_siblings(tree, what, around, lone, others, classes=False)
        around, inside = f"{around}{child}/", below
    splits = by_split(_without("", inside), tree.where(around))
    if len(splits) == 1 and len(folders := _without("", inside)) > 1:
        (name,) = splits.values()
        if name.lower() not in _ALSO_CLASSES or _grouped(folders[name], f"{around}{name}/").keys() != {""}:
            rest = ", ".join(sorted(folders.keys() - {name}))
            raise UserError(
                f"{tree.where(around)} holds {name} next to {rest}: it could be a split or a class; rename it, move it "
                "elsewhere, or name one of the folders as the source"
            )
        splits = {}
    _check_siblings(tree, what, around, _without("", inside), others, classes=not splits)
    if not splits:
        _check_no_splits_inside(tree, around, inside)
        return {"train": inside}
    folders_by_split = {split: _grouped(inside[name], f"{around}{name}/") for split, name in splits.items()}
    if flat := [splits[split] for split, folders in folders_by_split.items() if folders.keys() == {""}]:
        remedy = (
            "" if splits.get("train", flat[0]) in flat else f", or name {tree.where(around + splits['train'])} alone"
        )
        raise UserError(
            f"{tree.where(around)}: {' and '.join(flat)} {'holds' if len(flat) == 1 else 'hold'} {what}, but no "
            f"folders of classes ({flat[0]}/CLASS/FILE); tables of labels are not read, so sort the {what} into one "
            f"folder per class{remedy}"
        )
    for split, folders in folders_by_split.items():
        _check_siblings(tree, what, f"{around}{splits[split]}/", folders, others, classes=True)
    return folders_by_split


def _check_siblings(
    tree: ArchiveReader, what: str, around: str, used: _Folders, others: Sequence[str], *, classes: bool
) -> None:
    """Refuses a folder without a single sample that looks as if it should have some.

    Args:
        around: the folder whose children are looked at, with a ``/`` behind it.
        used: its children with samples.
        classes: whether its children are classes, of which also an empty one is refused, as are splits.
    """
    held = _grouped([name for name in others if name.startswith(around)], around)
    for folder in tree.folders:
        child = folder[len(around) :]
        if not folder.startswith(around) or "/" in child or child in used:
            continue
        kinds = Counter(suffix_of(name) for name in held.get(child, ()))
        strict = classes or split_of(child) is not None
        if (not kinds and strict) or kinds.keys() - _DOCUMENTS - ({""} if not strict else set()):
            listed = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in kinds.most_common(3))
            raise UserError(
                f"{tree.where(folder)} holds no {what} that can be read: {listed or 'it is empty, or leads nowhere'}; "
                f"convert its files, or leave it out by removing it from {tree.path} or by using a folder of links to "
                "the folders you need"
            )


def _check_no_splits_inside(tree: ArchiveReader, around: str, folders: _Folders) -> None:
    for label, names in _without("", folders).items():
        inner = by_split(_without("", _grouped(names, f"{around}{label}/")), tree.where(around + label))
        if len(inner) > 1:
            raise UserError(
                f"{tree.where(around + label)} holds {' and '.join(inner.values())}, which are splits inside a class; "
                f"arrange them the other way round ({next(iter(inner.values()))}/{label}/FILE)"
            )


def _check(tree: ArchiveReader, what: str, folders_by_split: dict[str, _Folders], names: Sequence[str]) -> None:
    if len(names) < 2:
        raise UserError(
            f"{tree.path} holds {what} of {len(names)} classes ({', '.join(names) or 'none'}); it must hold one folder "
            "per class for at least two classes, or folders train and test with such folders"
        )
    for key, folders in folders_by_split.items():
        if (classes := sorted(folders)) != names:
            raise UserError(f"{tree.path}: {key} has the classes {classes}, but train has {names}")
