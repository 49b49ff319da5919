"""The validation split, where the file has none: drawn class by class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..seeding import seed_of
from .format import DatasetInfo

Indices = npt.NDArray[np.int64]


def stratified(labels: Indices, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Sets a share of every class aside.

    Args:
        labels: int64 (n,).
        fraction: share to set aside, in [0, 1).
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


def split_rows(info: DatasetInfo, fraction: float, seed: int) -> dict[str, tuple[str, Indices | None]]:
    """Which rows of which stored split make up each split of the run.

    Args:
        info: the data set.
        fraction: ``data.validation_fraction``.
        seed: the run's seed.

    Returns:
        For ``train``, ``test`` and, where there is one, ``validation``: the name of the stored split, and indices
        into it, None for all rows.

    Raises:
        UserError: a fraction is wanted of a file that has a validation split of its own, or too few samples.
    """
    if fraction > 0 and "validation" in info.samples:
        raise UserError(
            f"data.validation_fraction is {fraction}, but {info.path} has a validation split of its own "
            f"({info.samples['validation']} samples); set it to 0"
        )
    if fraction == 0:
        return {split: (split, None) for split in info.samples}
    train, validation = stratified(info.labels["train"], fraction, seed)
    if not validation.size:
        raise UserError(
            f"data.validation_fraction is {fraction}, but no class of {info.path} has two training samples; set it to 0"
        )
    return {"train": ("train", train), "validation": ("train", validation), "test": ("test", None)}
