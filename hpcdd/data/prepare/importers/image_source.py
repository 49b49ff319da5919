"""What an importer gives: labelled images of which any rows can be read, in blocks, without holding them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ....core.seeding import seed_of
from ...split import Indices, stratified
from ...writing import Split
from ..image_transform import Preparation

Array = npt.NDArray[Any]
LeaveOut = Callable[[int], None]
"""Called with the position of a row that is left out, because its file is bad."""


@dataclass(frozen=True)
class Collection:
    """Labelled images, or those of one split.

    Attributes:
        labels: int64 (n,).
        image_shape: (C, *spatial).
        dtype: of the pixels.
        rows: from ascending indices (m,) to blocks (any number of rows, C, *spatial) of these images in this order;
            the second argument hears of the positions, 0 to m - 1, that are left out.
    """

    labels: Indices
    image_shape: tuple[int, ...]
    dtype: str
    rows: Callable[[Indices, LeaveOut], Iterable[Array]]

    @classmethod
    def from_array(cls, images: Array, labels: Array) -> Collection:
        """Images (n, C, *spatial) in memory, labels (n,)."""
        return cls(labels.astype(np.int64), images.shape[1:], str(images.dtype), lambda rows, _: [images[rows]])

    def take(self, indices: Indices) -> Collection:
        """Some of the images, by ascending indices (m,)."""
        return Collection(
            self.labels[indices],
            self.image_shape,
            self.dtype,
            lambda rows, leave_out: self.rows(indices[rows], leave_out),
        )

    def to_split(self, progress: Callable[[int], None]) -> Split:
        """All of it for the writer; ``progress`` hears of the numbers of images that have been read."""
        left_out: list[int] = []

        def blocks() -> Iterator[Array]:
            left_out.clear()
            for block in self.rows(np.arange(len(self.labels)), left_out.append):
                yield block
                progress(len(block))

        return Split(self.labels, self.image_shape, self.dtype, blocks, left_out)

    def balanced(self, each: int) -> Collection:
        """The first ``each`` images of every class, in their order; all those of a class that has fewer."""
        rows = [np.flatnonzero(self.labels == label)[:each] for label in np.unique(self.labels)]
        return self.take(np.sort(np.concatenate(rows)))

    def divided(self, fraction: float, seed: int, purpose: str) -> tuple[Collection, Collection]:
        """What stays, and what is set aside: a share of every class, drawn from (seed, purpose)."""
        stays, aside = stratified(self.labels, fraction, seed_of(seed, purpose))
        return self.take(stays), self.take(aside)


@dataclass(frozen=True)
class ImageSource:
    """A source as an importer has read it.

    Attributes:
        splits: ``train``, ``validation`` and ``test``, as far as the source is split; ``train`` alone where it isn't.
        class_names: K names; empty where the source has none.
        name: of the data set; empty for that of the source.
        source: where it comes from; empty for the source's path.
        synthetic: whether the images were computed, which is said wherever they are shown.
        preparation: how its files became images, where each is a file; in a form for other files.
        notes: what a user should know of the source, a line each: counts of files that were passed over, for one.
    """

    splits: Mapping[str, Collection]
    class_names: tuple[str, ...]
    name: str = ""
    source: str = ""
    synthetic: bool = False
    preparation: Preparation | None = None
    notes: list[str] = field(default_factory=list)
