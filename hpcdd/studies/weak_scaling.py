"""Weak scaling: a problem that grows with the ranks, while each of them has as much to do as before.

On n ranks the images are repeated along their axes, n times in all, and cut into n times as many boxes of the same
size. Only their number of pixels matters for what is measured, not what they show.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..config.schema import Config
from ..core.errors import UserError
from ..data.problem import Problem, bytes_on_root, check_memory
from ..data.reading import Array, BoxReader, Padding, Rows
from ..decomposition.boxes import Box, Decomposition
from ..models.width import match_widths


def factors(ranks: int, grid: Sequence[int]) -> tuple[int, ...]:
    """By how much each axis grows, with the product ``ranks``: the largest prime factors go to the shortest axes.

    >>> factors(6, (2, 2))
    (3, 2)
    >>> factors(4, (1, 2))
    (4, 1)
    """
    growth = [1] * len(grid)
    for prime in sorted(_primes(ranks), reverse=True):
        axis = min(range(len(grid)), key=lambda a: grid[a] * growth[a])
        growth[axis] *= prime
    return tuple(growth)


def grow(config: Config, problem: Problem, ranks: int) -> Problem:
    """The problem of ``ranks`` ranks.

    Args:
        config: of the study.
        problem: that of one rank.
        ranks: n.

    Raises:
        UserError: the decomposition can't be repeated so that each rank has as much to do as before, since it is not
            a grid, or has a coarse subdomain, overlap, or boxes of several sizes; or root has no memory for it.
    """
    grid = problem.decomposition.parts
    if grid is None or problem.decomposition.coarse is not None:
        obstacle = "decomposition.coarse is true" if grid is not None else "decomposition.boxes are set"
        raise UserError(f"a weak study repeats a grid of subdomains, but {obstacle}; use only decomposition.grid")
    if any(problem.decomposition.overlap):
        raise UserError(
            "a weak study needs boxes of one size on any number of ranks, but with decomposition.overlap "
            f"{list(problem.decomposition.overlap)} the boxes at the image's edge are smaller; use overlap 0"
        )
    if len({box.shape for box in problem.decomposition.boxes}) > 1:
        raise UserError(
            f"a weak study needs boxes of one size, but decomposition.grid {list(grid)} cuts images of "
            f"{list(problem.info.image_shape[1:])} pixels into boxes of several sizes; use divisors of the image's size"
        )
    by = factors(ranks, grid)
    image = tuple(n * f for n, f in zip(problem.info.image_shape[1:], by, strict=True))
    decomposition = Decomposition.grid(
        image, [n * f for n, f in zip(grid, by, strict=True)], problem.decomposition.overlap
    )
    info = dataclasses.replace(problem.info, image_shape=(problem.info.image_shape[0], *image))
    shapes = [(info.image_shape[0], *subdomain.shape) for subdomain in decomposition.subdomains]
    model = config.model.model_copy(update={"local_width": problem.widths.local_width})
    widths = match_widths(model, info.image_shape, shapes, info.num_classes)
    grown = dataclasses.replace(problem, info=info, decomposition=decomposition, widths=widths)
    if config.aggregation.placement == "root":
        inputs = sum(grown.feature_widths(config.aggregation.features))
        check_memory(bytes_on_root(sum(problem.samples.values()), inputs), problem.root_available)
    return grown


@dataclass
class RepeatedReader(BoxReader):
    """Reads boxes of images that are repeated along their axes.

    Attributes:
        stored: spatial shape of the images in the file.
    """

    stored: tuple[int, ...] = ()

    def read_rows(
        self,
        split: str,
        box: Box,
        parts: Sequence[Rows | None],
        block: Sequence[int] | None = None,
        padding: Padding | None = None,
    ) -> list[Array]:
        """As :meth:`BoxReader.read_rows`, for a box of the repeated image; reads whole images."""
        assert block is None or math.prod(block) == 1, "a weak study has no coarse subdomain"
        around = padding or [(0, 0)] * len(self.stored)
        whole = super().read_rows(split, Box((0,) * len(self.stored), self.stored), parts)
        cut = []
        for images in whole:
            for axis, (start, stop, n) in enumerate(zip(box.start, box.stop, self.stored, strict=True), start=2):
                images = np.take(images, np.arange(start, stop) % n, axis)  # noqa: PLW2901 - axis after axis
            cut.append(np.pad(images, [(0, 0), (0, 0), *around], mode="reflect"))
        return cut


def _primes(n: int) -> list[int]:
    smallest = next((divisor for divisor in range(2, n + 1) if n % divisor == 0), None)
    return [] if smallest is None else [smallest, *_primes(n // smallest)]
