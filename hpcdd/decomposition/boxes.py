"""Boxes over the spatial axes of an image: which pixels belong to which subdomain.

Pure index arithmetic for any number of axes: every rank computes every box without messages. See arXiv
2302.06564 for the decomposition of the input images, with and without overlap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..config.sections import DecompositionSettings


@dataclass(frozen=True)
class Box:
    """A half-open box of pixels, ``start[a] <= i < stop[a]`` along each axis a."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of pixels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of this box in an array whose axes are the spatial axes."""
        return tuple(slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def index(self) -> tuple[Any, ...]:
        """Index of this box in an array whose last axes are the spatial axes."""
        return (..., *self.slices)

    def within(self, outer: Box) -> Box:
        """The same pixels, counted from the first pixel of ``outer``."""
        return Box(
            tuple(a - o for a, o in zip(self.start, outer.start, strict=True)),
            tuple(b - o for b, o in zip(self.stop, outer.start, strict=True)),
        )

    def grow(self, pixels: Sequence[int], image: Sequence[int]) -> Box:
        """This box with ``pixels[a]`` more on both sides of axis a, cut at the borders of an image."""
        return Box(
            tuple(max(0, start - p) for start, p in zip(self.start, pixels, strict=True)),
            tuple(min(n, stop + p) for stop, p, n in zip(self.stop, pixels, image, strict=True)),
        )


@dataclass(frozen=True)
class Subdomain:
    """The input of one local CNN: the pixels of a box, averaged in blocks.

    Attributes:
        box: the box in the image.
        block: pixels along each axis that are averaged into one; 1 along every axis except for the coarse subdomain.
            Where a block does not divide the box, the last blocks are smaller.
    """

    box: Box
    block: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels of a subimage along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.box.shape, self.block, strict=True))

    @property
    def is_coarse(self) -> bool:
        """Whether pixels are averaged."""
        return any(b > 1 for b in self.block)


def split_evenly(length: int, parts: int) -> list[tuple[int, int]]:
    """Cuts ``range(length)`` into half-open intervals whose sizes differ by at most one, the larger ones first.

    >>> split_evenly(28, 3)
    [(0, 10), (10, 19), (19, 28)]
    """
    small, larger = divmod(length, parts)
    ends = [part * small + min(part, larger) for part in range(parts + 1)]
    return list(itertools.pairwise(ends))


@dataclass(frozen=True)
class Decomposition:
    """A decomposition of an image into boxes, numbered row by row (last axis fastest), and a coarse subdomain.

    Attributes:
        image: spatial shape of the whole image, pixels.
        parts: subdomains along each axis; None if the boxes were given explicitly.
        overlap: pixels along each axis by which a box extends beyond an interior side of its core.
        cores: the boxes without overlap; those of a grid tile the image.
        boxes: the cores extended by the overlap, and to one shape if they are uniform: the input of the local CNNs.
        coarse: block of pixels that the coarse subdomain averages into one; None without a coarse subdomain.
    """

    image: tuple[int, ...]
    parts: tuple[int, ...] | None
    overlap: tuple[int, ...]
    cores: tuple[Box, ...]
    boxes: tuple[Box, ...]
    coarse: tuple[int, ...] | None = None

    @classmethod
    def grid(cls, image: Sequence[int], grid: Sequence[int], overlap: int | Sequence[int] = 0) -> Self:
        """Cuts each axis evenly; remainders are spread, so sizes along an axis differ by at most one pixel.

        Args:
            image: spatial shape, pixels.
            grid: subdomains along each axis.
            overlap: pixels per interior side, one number or one per axis.

        Raises:
            ValueError: one message that names each axis and the numbers that do not fit.
        """
        axes = len(image)
        if len(grid) != axes:
            raise ValueError(
                f"decomposition.grid is {list(grid)}, with {len(grid)} axes, but the image has {axes} spatial axes, "
                f"{by(image)} pixels; give {axes} numbers"
            )
        if not isinstance(overlap, int) and len(overlap) != axes:
            raise ValueError(
                f"decomposition.overlap is {list(overlap)}, with {len(overlap)} axes, but the image has {axes} spatial "
                f"axes; give one number, or {axes}"
            )
        widths = (overlap,) * axes if isinstance(overlap, int) else tuple(overlap)
        problems = []
        for axis, (n, parts, width) in enumerate(zip(image, grid, widths, strict=True)):
            if not 1 <= parts <= n:
                problems.append(
                    f"decomposition.grid is {list(grid)}, but the image is {n} pixels long along axis {axis}; "
                    f"use 1 to {n} along axis {axis}"
                )
            if width < 0:
                problems.append(f"decomposition.overlap is {width} pixels along axis {axis}; use 0 or more")
        if problems:
            raise ValueError("; ".join(problems))
        intervals = [split_evenly(n, parts) for n, parts in zip(image, grid, strict=True)]
        cores = tuple(
            Box(tuple(start for start, _ in corner), tuple(stop for _, stop in corner))
            for corner in itertools.product(*intervals)
        )
        boxes = tuple(core.grow(widths, image) for core in cores)
        return cls(tuple(image), tuple(grid), widths, cores, boxes)

    @classmethod
    def from_boxes(cls, image: Sequence[int], boxes: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Self:
        """Uses explicit boxes, each given as (start, stop); they need not tile the image.

        Raises:
            ValueError: naming each box that is empty or reaches beyond the image, with axis and numbers.
        """
        axes = len(image)
        problems = []
        for s, (start, stop) in enumerate(boxes):
            where = f"decomposition.boxes[{s}] is [{list(start)}, {list(stop)}]"
            if len(start) != axes or len(stop) != axes:
                problems.append(
                    f"{where}, but the image has {axes} spatial axes; give {axes} first and {axes} last pixels"
                )
                continue
            problems += [
                f"{where}, which along axis {axis} is not within 0 to {n}; use 0 <= first < last <= {n}"
                for axis, (a, b, n) in enumerate(zip(start, stop, image, strict=True))
                if not 0 <= a < b <= n
            ]
        if problems:
            raise ValueError("; ".join(problems))
        made = tuple(Box(tuple(start), tuple(stop)) for start, stop in boxes)
        return cls(tuple(image), None, (0,) * axes, made, made)

    @classmethod
    def from_settings(cls, settings: DecompositionSettings, image: Sequence[int]) -> Self:
        """The decomposition that the ``decomposition`` section asks for on images of spatial shape ``image``.

        Raises:
            ValueError: see :meth:`grid`, :meth:`from_boxes` and :meth:`with_coarse`.
        """
        if settings.boxes is not None:
            made = cls.from_boxes(image, settings.boxes)
        else:
            made = cls.grid(image, (2,) * len(image) if settings.grid is None else settings.grid, settings.overlap)
        made = made.with_uniform_boxes() if settings.uniform else made
        return made.with_coarse() if settings.coarse else made

    def with_uniform_boxes(self) -> Self:
        """The same decomposition with boxes of one shape, so all local CNNs have the same shape.

        Along an axis every box becomes as long as the longest one: it grows equally on both sides or, at the
        image's border, on the other side.
        """
        largest = [max(box.shape[axis] for box in self.boxes) for axis in range(len(self.image))]

        def enlarged(box: Box) -> Box:
            starts = [
                min(max(0, start - (n - (stop - start)) // 2), limit - n)
                for start, stop, n, limit in zip(box.start, box.stop, largest, self.image, strict=True)
            ]
            return Box(tuple(starts), tuple(start + n for start, n in zip(starts, largest, strict=True)))

        return replace(self, boxes=tuple(map(enlarged, self.boxes)))

    def with_coarse(self) -> Self:
        """The same with a coarse subdomain: the image averaged down to at most the size of the largest box.

        It corresponds to the coarse space of a two-level domain decomposition method: each box sees the details of a
        part, this one sees the whole without details.

        Raises:
            ValueError: a box is as large as the image, so there is nothing to average.
        """
        largest = [max(box.shape[axis] for box in self.boxes) for axis in range(len(self.image))]
        block = tuple(-(-n // m) for n, m in zip(self.image, largest, strict=True))
        if all(b == 1 for b in block):
            raise ValueError(
                f"decomposition.coarse is true, but the boxes are {by(largest)} pixels large and the image "
                f"{by(self.image)}, so there is nothing to average; use smaller boxes, or no coarse subdomain"
            )
        return replace(self, coarse=block)

    @property
    def subdomains(self) -> tuple[Subdomain, ...]:
        """The input region of each of the S local CNNs; the coarse subdomain is the last one."""
        ones = (1,) * len(self.image)
        fine = tuple(Subdomain(box, ones) for box in self.boxes)
        return fine if self.coarse is None else (*fine, Subdomain(Box((0,) * len(self.image), self.image), self.coarse))

    def __len__(self) -> int:
        """S, the number of subdomains, the coarse one included."""
        return len(self.boxes) + (self.coarse is not None)

    def coverage(self) -> float:
        """Fraction of the image's pixels that at least one box contains, in (0, 1]."""
        import numpy as np

        # The same boxes contain all pixels between neighbouring ends, so memory depends on the boxes, not on the image.
        ends = [
            np.unique([0, length, *(box.start[axis] for box in self.boxes), *(box.stop[axis] for box in self.boxes)])
            for axis, length in enumerate(self.image)
        ]
        seen = np.zeros([len(cuts) - 1 for cuts in ends], dtype=bool)
        for box in self.boxes:
            limits = zip(ends, box.start, box.stop, strict=True)
            seen[tuple(slice(*map(int, np.searchsorted(cuts, (a, b)))) for cuts, a, b in limits)] = True
        pixels = seen.astype(np.float64)
        for cuts in reversed(ends):
            pixels = pixels @ np.diff(cuts).astype(np.float64)
        return float(pixels) / math.prod(self.image)

    def assemble(self, subimages: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Reassembles the image from the cores of the boxes' subimages.

        Args:
            subimages: one array for each box, of shape (..., *box.shape), of one dtype.

        Returns:
            Array (..., *image).

        Raises:
            ValueError: the cores do not tile the image (explicit boxes may leave gaps or overlap).
        """
        import numpy as np

        count = np.zeros(self.image, dtype=np.int64)
        for core in self.cores:
            count[core.slices] += 1
        if (count != 1).any():
            raise ValueError("these boxes do not tile the image, so it can't be assembled from their subimages")
        leading = subimages[0].shape[: -len(self.image)]
        image: npt.NDArray[Any] = np.empty((*leading, *self.image), dtype=subimages[0].dtype)
        for subimage, core, box in zip(subimages, self.cores, self.boxes, strict=True):
            image[core.index] = subimage[core.within(box).index]
        return image


def by(shape: Sequence[int]) -> str:
    """A shape in words: ``28 x 28``."""
    return " x ".join(map(str, shape))
