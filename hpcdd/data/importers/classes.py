"""Files in folders named after their classes, with or without folders named after the splits around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ...errors import UserError
from .collection import Collection, Imported
from .tree import Tree
from .work import Decoder, Work

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def read(tree: Tree, suffixes: Iterable[str], what: str, decode: Decoder, work: Work) -> Imported:
    """Reads ``{train,validation,test}/CLASS/FILE`` or ``CLASS/FILE``, also where all of it lies in one more folder.

    Args:
        tree: the source.
        suffixes: of the files that are meant, in lower case; others are counted and passed over.
        what: these files are, in messages.
        decode, work: see :meth:`Work.collect`.

    Returns:
        The splits that are there, the classes in alphabetical order.

    Raises:
        UserError: no such files; fewer than two classes; classes that differ between splits; a bad file.
    """
    endings = tuple(suffixes)
    paths = [(name.split("/"), name) for name in tree.files if name.lower().endswith(endings)]
    if not paths:
        raise UserError(f"{tree.path} holds no {what} ({', '.join(sorted(endings))})")
    passed = len(tree.files) - len(paths)
    common = _common([tuple(parts[:-1]) for parts, _ in paths])
    split = any(len(parts) - common == 3 and parts[common] == "train" for parts, _ in paths)
    found: dict[str, list[tuple[str, str]]] = {}
    for parts, name in paths:
        folders = parts[common:-1]
        if split and len(folders) == 2 and folders[0] in _SPLITS:
            found.setdefault(_SPLITS[folders[0]], []).append((folders[1], name))
        elif not split and len(folders) == 1:
            found.setdefault("train", []).append((folders[0], name))
        else:
            passed += 1
    names = sorted({label for label, _ in found.get("train", [])})
    _check(tree, what, found, names)
    number = {name: label for label, name in enumerate(names)}
    splits: dict[str, Collection] = {}
    for key in ("train", "validation", "test"):
        if key in found:
            labels = [number[label] for label, _ in found[key]]
            splits[key] = work.collect(tree, [name for _, name in found[key]], labels, decode)
    shapes = {key: part.image_shape for key, part in splits.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"{tree.path}: {what} differ between splits: {shapes} (channels first); name one with --size")
    return Imported(splits, tuple(names), notes=[f"passed over {passed} other files"] if passed else [])


def _common(folders: Sequence[tuple[str, ...]]) -> int:
    """How many folders lie around all files, those of splits and classes not counted; one for each file is given."""
    usual, _ = Counter(map(len, folders)).most_common(1)[0]
    folders = [parts for parts in folders if len(parts) == usual]  # a stray file elsewhere decides nothing
    depth = 0
    while depth + 1 < usual:
        names = {parts[depth] for parts in folders}
        if len(names) > 1 or names <= _SPLITS.keys():
            break
        depth += 1
    return depth


def _check(tree: Tree, what: str, found: dict[str, list[tuple[str, str]]], names: Sequence[str]) -> None:
    if len(names) < 2:
        raise UserError(
            f"{tree.path} holds {what} of {len(names)} classes ({', '.join(names) or 'none'}); it must hold a folder "
            "for each of two classes or more, or the folders train and test with these"
        )
    for key, files in found.items():
        if (classes := sorted({label for label, _ in files})) != names:
            raise UserError(f"{tree.path}: {key} has the classes {classes}, but train has {names}")
