"""Which images of a source become which split of the dataset file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...core.errors import UserError
from ...core.seeding import seed_of
from ..split import stratified
from ..writing import Split

TEST_FRACTION = 0.2
"""Of a source that has no test split."""


def divided(splits: Mapping[str, Split], test: float | None, validation: float, seed: int) -> dict[str, Split]:
    """Sets the splits aside that a source lacks, class by class.

    Args:
        splits: of the source, ``train`` among them.
        test, validation: fractions of the source's training images; test None: :data:`TEST_FRACTION` if there is no
            such split, validation 0: none.
        seed: of what is drawn.

    Returns:
        ``train``, ``validation`` if wanted or there, and ``test``.

    Raises:
        UserError: a fraction that is not between 0 and 1, is of a split that the source has, or leaves too few samples.
    """
    for name, fraction in (("test", test), ("validation", validation or None)):
        if fraction is None:
            continue
        if name in splits:
            raise UserError(
                f"--{name}-fraction is {fraction:g}, but the source already has a {name} split "
                f"({len(splits[name].labels)} samples); leave it out"
            )
        if not 0 < fraction < 1:
            raise UserError(f"--{name}-fraction is {fraction:g}; use a number between 0 and 1")
    if test is None and "test" not in splits:
        test = TEST_FRACTION
    if (test or 0) + validation >= 1:
        raise UserError(f"--test-fraction {test:g} and --validation-fraction {validation:g} leave nothing for training")
    made = dict(splits)
    left = 1.0
    for name, fraction in (("test", test), ("validation", validation or None)):
        if fraction is not None:
            train = made["train"]
            stays, aside = stratified(train.labels, fraction / left, seed_of(seed, name))
            made["train"], made[name] = train.select(stays), train.select(aside)
            left -= fraction
            if len(made[name].labels) < 2:
                raise UserError(
                    f"the {name} split would have {len(made[name].labels)} samples: at least one of each class with "
                    "two or more is set aside; use a source with more images"
                )
    return {name: made[name] for name in ("train", "validation", "test") if name in made}


def balanced(part: Split, name: str, wanted: int) -> Split:
    """The first samples of a split, in their order, such that each class has ``wanted / K`` of them.

    Raises:
        UserError: ``wanted`` is no positive multiple of K, or a class has fewer.
    """
    classes, counts = np.unique(part.labels, return_counts=True)
    each, rest = divmod(wanted, len(classes))
    if rest or each < 1:
        raise UserError(f"--{name}-samples is {wanted}; with {len(classes)} classes use a multiple of {len(classes)}")
    if (fewest := int(counts.min())) < each:
        raise UserError(
            f"--{name}-samples is {wanted}, {each} per class, but one class has only {fewest} in the source"
        )
    rows = [np.flatnonzero(part.labels == label)[:each] for label in classes]
    return part.select(np.sort(np.concatenate(rows)))
