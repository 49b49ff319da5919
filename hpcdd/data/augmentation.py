"""Augmentation: the training images shifted and mirrored as a whole, before they are cut into subimages.

Which view of an image an epoch sees is drawn from (seed, epoch, sample) alone, so that all subdomains, on whichever
rank, see parts of the same view. A rank reads its box with the margin that a shift may need and, where images are
mirrored, the mirrored box. Beyond the border an image goes on as its reflection.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch.nn import functional

from ..decomposition.boxes import Box
from .coarse import average_of_tensor, coarse_shape
from .samples import Rows, Samples, ViewSeed, bits_of, onto

if TYPE_CHECKING:
    from ..config.sections import AugmentationSettings


@dataclass(frozen=True)
class Region:
    """Pixels from which views of one box are cut.

    Attributes:
        box: of the image, what is read.
        padding: per axis the pixels before and after it that its reflection adds.
    """

    box: Box
    padding: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Views:
    """How some samples are seen in one epoch.

    Attributes:
        mirror: int64 (n,), which of :attr:`Augmentation.mirrors`.
        first: int64 (n, axes), the first pixel of the view in the region: the shift plus :attr:`Augmentation.shift`.
        hole: int64 (n, axes), the first pixel that is cut out of the view of the whole image; None without cutout.
    """

    mirror: torch.Tensor
    first: torch.Tensor
    hole: torch.Tensor | None = None

    def of(self, rows: torch.Tensor) -> Views:
        """Those of some samples."""
        return Views(self.mirror[rows], self.first[rows], None if self.hole is None else self.hole[rows])

    def to(self, device: torch.device) -> Views:
        """The same on a device."""
        return Views(self.mirror.to(device), self.first.to(device), None if self.hole is None else self.hole.to(device))

    def copy_(self, other: Views) -> None:
        """Takes others over, in the memory of these."""
        self.mirror.copy_(other.mirror)
        self.first.copy_(other.first)
        if self.hole is not None and other.hole is not None:
            self.hole.copy_(other.hole)


@dataclass(frozen=True)
class Augmentation:
    """What may be done to an image.

    Attributes:
        shift: per spatial axis, the most pixels by which it is shifted in both directions.
        mirrors: the ways in which it may be mirrored, each a set of spatial axes; the first is empty.
        image: spatial shape of an image.
        alternate: whether the mirror images of each sample take turns, epoch by epoch.
        cutout: pixels along each axis of the square that is cut out; 0 for none.
        test_flip: whether samples are evaluated in all their mirror images.
    """

    shift: tuple[int, ...]
    mirrors: tuple[tuple[int, ...], ...]
    image: tuple[int, ...] = ()
    alternate: bool = False
    cutout: int = 0
    test_flip: bool = False

    @property
    def of_training(self) -> Augmentation:
        """What is done to samples that CNNs are trained on; the DNN learns from decisions about them as they are."""
        return replace(self, test_flip=False)

    @property
    def of_evaluation(self) -> Augmentation | None:
        """What is done to samples that no CNN is trained on; None where nothing is."""
        return replace(self, shift=(0,) * len(self.shift), cutout=0) if self.test_flip else None

    @classmethod
    def from_settings(cls, settings: AugmentationSettings, image: Sequence[int]) -> Self | None:
        """The augmentation of images of spatial shape ``image``; None where nothing is to be done.

        Raises:
            ValueError: naming each number that does not fit.
        """
        axes, shift = len(image), settings.shift
        problems = []
        if not isinstance(shift, int) and len(shift) != axes:
            problems.append(
                f"augmentation.shift is {list(shift)}, but the images have {axes} spatial axes; give one number, or "
                f"{axes}"
            )
        shifts = (shift,) * axes if isinstance(shift, int) else shift
        problems += [
            f"augmentation.shift is {p} pixels along axis {axis}, but the images have {n}; use 0 to {n - 1}"
            for axis, (p, n) in enumerate(zip(shifts, image, strict=False))
            if p >= n
        ]
        problems += [
            f"augmentation.mirror names axis {axis}, but the images have {axes} spatial axes; use 0 to {axes - 1}"
            for axis in settings.mirror
            if axis >= axes
        ]
        if settings.cutout > min(image):
            problems.append(
                f"augmentation.cutout is {settings.cutout} pixels, but the images have {min(image)}; use a smaller "
                "number"
            )
        if problems:
            raise ValueError("; ".join(problems))
        if not any(shifts) and not settings.mirror and not settings.cutout:
            return None
        sides = sorted(settings.mirror)
        subsets = itertools.chain.from_iterable(itertools.combinations(sides, k) for k in range(len(sides) + 1))
        return cls(tuple(shifts), tuple(subsets), tuple(image), settings.alternate, settings.cutout, settings.test_flip)

    def regions(self, box: Box, image: Sequence[int]) -> tuple[Region, ...]:
        """For each of :attr:`mirrors`, what has to be read for the views of one box."""
        return tuple(self._region(box, image, axes) for axes in self.mirrors)

    def _region(self, box: Box, image: Sequence[int], mirrored: Sequence[int]) -> Region:
        limits = zip(box.start, box.stop, image, strict=True)
        seen = [(n - b, n - a) if axis in mirrored else (a, b) for axis, (a, b, n) in enumerate(limits)]
        inner = Box(tuple(a for a, _ in seen), tuple(b for _, b in seen))
        grown = inner.grow(self.shift, image)
        before = [p - (a - o) for p, a, o in zip(self.shift, inner.start, grown.start, strict=True)]
        after = [p - (o - b) for p, b, o in zip(self.shift, inner.stop, grown.stop, strict=True)]
        return Region(grown, tuple(zip(before, after, strict=True)))

    def draw(self, samples: int, seed: ViewSeed) -> Views:
        """The views of n samples in one epoch."""
        generator = torch.Generator().manual_seed(seed.of_epoch)
        mirror = torch.randint(len(self.mirrors), (samples,), generator=generator)
        if self.alternate:  # K. Jordan, arXiv 2404.00498, section 3.6; here of any number of axes
            once = torch.Generator().manual_seed(seed.of_training)
            start = torch.randint(len(self.mirrors), (samples,), generator=once)
            mirror = (start + seed.epoch) % len(self.mirrors)
        first = [torch.randint(2 * p + 1, (samples,), generator=generator) for p in self.shift]
        hole = None
        if self.cutout:  # T. DeVries and G. Taylor, arXiv 1708.04552; here inside the image
            places = [torch.randint(n - self.cutout + 1, (samples,), generator=generator) for n in self.image]
            hole = torch.stack(places, dim=1)
        return Views(mirror, torch.stack(first, dim=1), hole)


@dataclass(frozen=True, kw_only=True)
class AugmentedSamples(Samples):
    """The training split with its views; ``inputs`` is the region that is not mirrored.

    Attributes:
        augmentation: what may be done.
        regions: for each of its mirrors (n, C, *region), the same tensor where regions are the same.
        start: first pixel of the box in the image.
        block: pixels along each axis of a view that are averaged to one; 1 but for the coarse subdomain.
        views: the epoch's; None shows the images as they are.
    """

    augmentation: Augmentation
    regions: tuple[torch.Tensor, ...]
    start: tuple[int, ...]
    block: tuple[int, ...]
    views: Views | None = None

    def in_epoch(self, seed: ViewSeed) -> Self:
        """The samples as one epoch sees them."""
        return self.in_views(self.augmentation.draw(len(self), seed))

    def in_views(self, views: Views) -> Self:
        """The samples in some views."""
        return replace(self, views=views.to(self.inputs.device))

    def evaluated(self, rows: Rows) -> Sequence[torch.Tensor]:
        """See :meth:`Samples.evaluated`."""
        if not self.augmentation.test_flip:
            return super().evaluated(rows)
        n, device = len(self), self.inputs.device
        unshifted = torch.tensor(self.augmentation.shift, device=device).expand(n, -1)
        mirrors = torch.arange(len(self.augmentation.mirrors), device=device)
        return [self.in_views(Views(mirror.expand(n), unshifted)).batch(rows)[0] for mirror in mirrors]

    def renew(self, other: Self) -> None:
        """See :meth:`Samples.renew`."""
        assert self.views is not None and other.views is not None  # noqa: PT018
        self.views.copy_(other.views)

    def batch(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`Samples.batch`; what is cut out is 0, the mean of the training split."""
        inputs, labels = super().batch(rows)
        if self.views is not None and self.views.hole is not None:
            inputs.mul_(onto(self._kept(self.views.hole[rows]), inputs.device).unsqueeze(1))
        return inputs, labels

    def _kept(self, hole: torch.Tensor) -> torch.Tensor:
        """The part of each pixel that is not cut out, float32 (b, *spatial), of holes (b, axes)."""
        axes, cut = range(len(self.start)), torch.ones(())
        for axis, (start, n, block) in enumerate(zip(self.start, self._view, self.block, strict=True)):
            pixels = torch.arange(start, start + n, device=hole.device) - hole[:, axis, None]
            inside = ((pixels >= 0) & (pixels < self.augmentation.cutout)).float().unsqueeze(1)
            inside = functional.avg_pool1d(inside, block, ceil_mode=True, count_include_pad=False)
            cut = cut * inside.view(len(hole), *[-1 if axis == a else 1 for a in axes])
        return 1 - cut

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) of a subimage."""
        return (self.inputs.shape[1], *coarse_shape(self._view, self.block))

    @property
    def _view(self) -> list[int]:
        """Pixels of a view along each axis, before anything is averaged."""
        return [n - 2 * p for n, p in zip(self.inputs.shape[2:], self.augmentation.shift, strict=True)]

    def pixels(self, rows: Rows) -> torch.Tensor:
        """Stored pixels of some rows, (b, C, *spatial): views cut from the regions, or the images as they are."""
        if self.views is None:
            index = [slice(p, n - p) for p, n in zip(self.augmentation.shift, self.inputs.shape[2:], strict=True)]
            views = self.inputs[:, :, *index][rows]
        else:
            if isinstance(rows, slice):
                rows = torch.arange(*rows.indices(len(self)), device=self.inputs.device)
            cut = self._cut if self.inputs.device.type == "cpu" else self._gathered
            views = cut(rows, self.views.mirror[rows], self.views.first[rows]).view(self.inputs.dtype)
        return average_of_tensor(views, self.block)

    def _cut(self, rows: torch.Tensor, mirror: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Window by window, the fastest way on a CPU."""
        size = self._view
        views = bits_of(self.inputs).new_empty((len(rows), self.inputs.shape[1], *size))
        for number, (axes, region) in enumerate(zip(self.augmentation.mirrors, self.regions, strict=True)):
            chosen = (mirror == number).nonzero().squeeze(1)
            windows = bits_of(region)
            for axis, n in enumerate(size):
                windows = windows.unfold(2 + axis, n, 1)
            # (n, C, first pixel along each axis ..., pixels of the window ...): one index takes both.
            offsets: list[torch.Tensor] = list(torch.unbind(first[chosen], dim=1))
            cut: torch.Tensor = windows[rows[chosen], :, *offsets]  # type: ignore[index]  # mypy takes the star for objects
            views[chosen] = cut.flip([2 + axis for axis in axes])
        return views

    def _gathered(self, rows: torch.Tensor, mirror: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Pixel by pixel out of every region: which samples are mirrored a GPU need not tell the host."""
        size, axes, (mirrored, region_of) = self._view, range(len(self._view)), self._tables
        flat = rows.view(-1, *[1 for _ in axes])
        for axis, n in enumerate(size):
            forward = torch.arange(n, device=mirror.device)
            offset = torch.where(mirrored[mirror, axis, None], n - 1 - forward, forward) + first[:, axis, None]
            flat = flat * self.inputs.shape[2 + axis] + offset.view(-1, *[n if axis == a else 1 for a in axes])
        regions = list(dict.fromkeys(self.regions))
        found = [bits_of(r).movedim(1, -1).flatten(0, -2).index_select(0, flat.flatten()) for r in regions]
        views, *others = (its.view(*flat.shape, -1).movedim(-1, 1) for its in found)
        for number, its in enumerate(others, 1):
            views = torch.where((region_of[mirror] == number).view(-1, 1, *[1 for _ in axes]), its, views)
        return views

    @functools.cached_property
    def _tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For each of the mirrors whether an axis is mirrored, and which of the different regions shows it."""
        mirrors, axes, different = self.augmentation.mirrors, range(len(self._view)), list(dict.fromkeys(self.regions))
        mirrored = [[axis in its for axis in axes] for its in mirrors]
        numbers = [next(k for k, other in enumerate(different) if other is region) for region in self.regions]
        return tuple(torch.tensor(table, device=self.inputs.device) for table in (mirrored, numbers))  # type: ignore[return-value]
