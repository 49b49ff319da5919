"""A part of a data set, for quick experiments: some of its classes, some of its training samples."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..core.errors import UserError
from ..core.seeding import seed_of
from .format import DatasetInfo

Indices = npt.NDArray[np.int64]


def with_classes(info: DatasetInfo, classes: Sequence[int | str] | None) -> DatasetInfo:
    """The data set with some of its classes.

    Args:
        info: the data set.
        classes: names, or numbers from 0; a number that is also a name is that name. None for all.

    Returns:
        The data set with only these classes, in the file's order, and labels that count them from 0; the label of a
        sample of another class is -1. Mean and standard deviation remain those of the whole.

    Raises:
        UserError: a class that is not there or named twice, or a split in which too little is left.
    """
    if classes is None:
        return info
    chosen = [_number(info, name) for name in classes]
    if len(set(chosen)) < len(chosen):
        twice = next(info.class_names[number] for number in chosen if chosen.count(number) > 1)
        raise UserError(f"data.classes is {list(classes)}, which names class {twice!r} twice; name each class once")
    renumbered = np.full(info.num_classes, -1, np.int64)
    renumbered[sorted(chosen)] = np.arange(len(chosen))
    labels = {split: renumbered[values] for split, values in info.labels.items()}
    for split, values in labels.items():
        if (left := int((values >= 0).sum())) < 2:
            raise UserError(f"data.classes leaves {left} samples in split {split!r} of {info.path}; 2 are needed")
    return dataclasses.replace(info, class_names=tuple(info.class_names[n] for n in sorted(chosen)), labels=labels)


def in_proportion(labels: Indices, count: int, seed: int) -> Indices:
    """Draws samples in the proportion of the classes, rounded, at least one of each class.

    Args:
        labels: int64 (n,).
        count: number of samples, from the number of classes to n.
        seed: the run's seed; a smaller count draws from each class the first of those that a larger count draws.

    Returns:
        Ascending indices, ``count`` of them.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    quotas = count * sizes / len(labels)
    counts = np.maximum(1, np.floor(quotas).astype(np.int64))
    while counts.sum() != count:  # the largest remainder wins a sample, the smallest loses one
        room = (counts < sizes) if counts.sum() < count else (counts > 1)
        step = 1 if counts.sum() < count else -1
        counts[np.argmax(np.where(room, step * (quotas - counts), -np.inf))] += step
    generator = np.random.default_rng(seed_of(seed, "subset"))
    drawn = [generator.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, counts, strict=True)]
    return np.sort(np.concatenate(drawn))


def _number(info: DatasetInfo, name: int | str) -> int:
    if str(name) in info.class_names:
        return info.class_names.index(str(name))
    if str(name).isdecimal() and int(name) < info.num_classes:
        return int(name)
    close = difflib.get_close_matches(str(name), info.class_names, n=1)
    some = ", ".join(info.class_names[:5]) + (", ..." if info.num_classes > 5 else "")
    hint = f"did you mean {close[0]}?" if close else f"use names ({some}) or numbers from 0 to {info.num_classes - 1}"
    raise UserError(f"data.classes names {name!r}, which {info.path} does not have; {hint}")
