"""The validation split, where the file has none: drawn class by class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..core.errors import UserError
from ..core.seeding import seed_of
from .format import DatasetInfo
from .subset import in_proportion

Indices = npt.NDArray[np.int64]


def stratified(labels: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Sets a fraction of every class aside.

    Args:
        labels: int64 (n,).
        fraction: of each class to set aside, in [0, 1).
        seed: the run's seed; the same for all ranks, so that all set the same samples aside.

    Returns:
        Ascending indices of the samples that stay, and of those set aside. Of each class at least one sample
        stays; of each class with two or more at least one is set aside, unless ``fraction`` is 0.
    """
    aside = [np.empty(0, np.int64)]
    if fraction > 0:
        generator = np.random.default_rng(seed_of(seed, "validation split"))
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            count = min(max(1, round(fraction * members.size)), members.size - 1)
            aside.append(generator.permutation(members)[:count])
    chosen = np.sort(np.concatenate(aside))
    return np.setdiff1d(np.arange(labels.size), chosen, assume_unique=True), chosen


def labels_of(info: DatasetInfo, stored: tuple[str, Indices | None]) -> Indices:
    """int64 (n,) of a split of the run, which is named as in :func:`split_rows`."""
    name, rows = stored
    labels = info.labels[name]
    return labels if rows is None else labels[rows]


def count_samples(info: DatasetInfo, rows: Mapping[str, tuple[str, Indices | None]]) -> dict[str, int]:
    """Number of samples of each split of the run, which is given as by :func:`split_rows`."""
    return {split: len(info.labels[name]) if part is None else len(part) for split, (name, part) in rows.items()}


def split_rows(
    info: DatasetInfo, fraction: float, seed: int, subset: int | None = None
) -> dict[str, tuple[str, Indices | None]]:
    """Which rows of which stored split make up each split of the run.

    Args:
        info: the data set; samples with label -1 are left out.
        fraction: ``data.validation_fraction``.
        seed: the run's seed.
        subset: ``data.subset``, of the training split before the validation split is taken from it; None for all.

    Returns:
        For ``train``, ``test`` and, where there is one, ``validation``: the name of the stored split, and ascending
        indices into it, None for all rows.

    Raises:
        UserError: a fraction is wanted of a file that has a validation split of its own, or too few samples.
    """
    if fraction > 0 and "validation" in info.samples:
        raise UserError(
            f"data.validation_fraction is {fraction}, but {info.path} already has a validation split "
            f"({info.samples['validation']} samples); set it to 0"
        )
    usable = {split: np.flatnonzero(labels >= 0) for split, labels in info.labels.items()}
    if subset is not None:
        usable["train"] = usable["train"][_subset(info, usable["train"], subset, seed)]
    if fraction > 0:
        train, validation = stratified(info.labels["train"][usable["train"]], fraction, seed)
        if not validation.size:
            raise UserError(
                f"data.validation_fraction is {fraction}, but no class of {info.path} has two training samples; "
                "set it to 0"
            )
        both = usable["train"]
        rows = {"train": ("train", both[train]), "validation": ("train", both[validation])}
        return {**rows, "test": ("test", _or_all(info, "test", usable["test"]))}
    return {split: (split, _or_all(info, split, rows)) for split, rows in usable.items()}


def _subset(info: DatasetInfo, rows: Indices, count: int, seed: int) -> Indices:
    labels = info.labels["train"][rows]
    least = len(np.unique(labels))
    if not least <= count <= len(rows):
        raise UserError(
            f"data.subset is {count}, but {info.path} has {len(rows)} training samples of {least} classes to choose "
            f"from; use {least} to {len(rows)}"
        )
    return in_proportion(labels, count, seed)


def _or_all(info: DatasetInfo, split: str, rows: Indices) -> Indices | None:
    return None if len(rows) == len(info.labels[split]) else rows
