"""The names by which publishers call the splits of a data set, in folders and arrays alike."""

from __future__ import annotations

from collections.abc import Iterable

from ....core.errors import UserError

SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
"""In lower case; any case is understood."""
_SPLITS = {spelling: split for split, spellings in SPELLINGS.items() for spelling in spellings}


def split_of(name: str) -> str | None:
    """The split that a name means; None: it means none.

    >>> split_of("Training"), split_of("VALID"), split_of("tests")
    ('train', 'validation', None)
    """
    return _SPLITS.get(name.lower())


def by_split(names: Iterable[str], where: str) -> dict[str, str]:
    """Those of the names that mean splits, by ``train``, ``validation`` and ``test`` in this order.

    Args:
        names: of folders, or what stands for the split in those of arrays.
        where: they are, in messages.

    Raises:
        UserError: two of them mean the same split.
    """
    names_by_split: dict[str, str] = {}
    for name in sorted(set(names)):
        split = split_of(name)
        if split is None:
            continue
        if split in names_by_split:
            raise UserError(
                f"{where} holds both {names_by_split[split]} and {name}, which both name the same split; rename or "
                "move one of them"
            )
        names_by_split[split] = name
    return {split: names_by_split[split] for split in SPELLINGS if split in names_by_split}
