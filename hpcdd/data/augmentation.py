"""Augmentation: training images are translated and flipped as a whole, before they are cut into subimages.

The transform of an image in an epoch is drawn from (seed, epoch, sample) alone, so that all subdomains, on any rank,
see parts of the same augmented image. A rank reads its box with the margin that a translation may need and, where
images are flipped, the flipped box. Beyond its border an image is continued by reflection.
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
from .samples import AugmentationSeed, Rows, Samples, bits_of, onto

if TYPE_CHECKING:
    from ..config.sections import AugmentationSettings


@dataclass(frozen=True)
class Region:
    """Pixels from which augmented subimages of one box are cut.

    Attributes:
        box: of the image, what is read.
        padding: per axis the pixels before and after it that its reflection adds.
    """

    box: Box
    padding: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Transforms:
    """How the images of n samples are transformed in one epoch.

    Attributes:
        flip: int64 (n,), which of :attr:`Augmentation.flips`.
        first: int64 (n, axes), the first pixel in the region: the translation plus :attr:`Augmentation.translate`.
        hole: int64 (n, axes), the first pixel that is cut out of the whole transformed image; None without cutout.
    """

    flip: torch.Tensor
    first: torch.Tensor
    hole: torch.Tensor | None = None

    def of(self, rows: torch.Tensor) -> Transforms:
        """Those of some samples."""
        return Transforms(self.flip[rows], self.first[rows], None if self.hole is None else self.hole[rows])

    def to(self, device: torch.device) -> Transforms:
        """The same on a device."""
        return Transforms(
            self.flip.to(device), self.first.to(device), None if self.hole is None else self.hole.to(device)
        )

    def copy_(self, other: Transforms) -> None:
        """Takes others over, in the memory of these."""
        self.flip.copy_(other.flip)
        self.first.copy_(other.first)
        if self.hole is not None and other.hole is not None:
            self.hole.copy_(other.hole)


@dataclass(frozen=True)
class Augmentation:
    """What may be done to an image.

    Attributes:
        translate: per spatial axis, the most pixels by which it is translated in both directions.
        flips: the ways in which it may be flipped, each a set of spatial axes; the first is empty.
        image: spatial shape of an image.
        alternate: whether the flips of each sample alternate from epoch to epoch.
        cutout: pixels along each axis of the square that is cut out; 0 for none.
        test_flip: whether predictions are means over an image and all its flips.
    """

    translate: tuple[int, ...]
    flips: tuple[tuple[int, ...], ...]
    image: tuple[int, ...] = ()
    alternate: bool = False
    cutout: int = 0
    test_flip: bool = False

    @property
    def of_training(self) -> Augmentation:
        """What is done to samples that CNNs are trained on; the DNN is trained on outputs for the unchanged images."""
        return replace(self, test_flip=False)

    @property
    def of_evaluation(self) -> Augmentation | None:
        """What is done to samples that no CNN is trained on; None where nothing is."""
        return replace(self, translate=(0,) * len(self.translate), cutout=0) if self.test_flip else None

    @classmethod
    def from_settings(cls, settings: AugmentationSettings, image: Sequence[int]) -> Self | None:
        """The augmentation of images of spatial shape ``image``; None where nothing is to be done.

        Raises:
            ValueError: naming each number that does not fit.
        """
        axes, translate = len(image), settings.translate
        problems = []
        if not isinstance(translate, int) and len(translate) != axes:
            problems.append(
                f"augmentation.translate is {list(translate)}, but the images have {axes} spatial axes; give one "
                f"number, or {axes}"
            )
        translations = (translate,) * axes if isinstance(translate, int) else translate
        problems += [
            f"augmentation.translate is {p} pixels along axis {axis}, but the images have {n}; use 0 to {n - 1}"
            for axis, (p, n) in enumerate(zip(translations, image, strict=False))
            if p >= n
        ]
        problems += [
            f"augmentation.flip names axis {axis}, but the images have {axes} spatial axes; use 0 to {axes - 1}"
            for axis in settings.flip
            if axis >= axes
        ]
        if settings.cutout >= min(image):
            problems.append(
                f"augmentation.cutout is {settings.cutout} pixels, but the images have {min(image)}; use 0 to "
                f"{min(image) - 1}"
            )
        if problems:
            raise ValueError("; ".join(problems))
        if not any(translations) and not settings.flip and not settings.cutout:
            return None
        sides = sorted(settings.flip)
        subsets = itertools.chain.from_iterable(itertools.combinations(sides, k) for k in range(len(sides) + 1))
        return cls(
            tuple(translations), tuple(subsets), tuple(image), settings.alternate, settings.cutout, settings.test_flip
        )

    def regions(self, box: Box, image: Sequence[int]) -> tuple[Region, ...]:
        """For each of :attr:`flips`, what has to be read for the augmented subimages of one box."""
        return tuple(self._region(box, image, axes) for axes in self.flips)

    def _region(self, box: Box, image: Sequence[int], flipped: Sequence[int]) -> Region:
        limits = zip(box.start, box.stop, image, strict=True)
        seen = [(n - b, n - a) if axis in flipped else (a, b) for axis, (a, b, n) in enumerate(limits)]
        inner = Box(tuple(a for a, _ in seen), tuple(b for _, b in seen))
        grown = inner.grow(self.translate, image)
        before = [p - (a - o) for p, a, o in zip(self.translate, inner.start, grown.start, strict=True)]
        after = [p - (o - b) for p, b, o in zip(self.translate, inner.stop, grown.stop, strict=True)]
        return Region(grown, tuple(zip(before, after, strict=True)))

    def draw(self, samples: int, seed: AugmentationSeed) -> Transforms:
        """The transforms of n samples in one epoch."""
        generator = torch.Generator().manual_seed(seed.of_epoch)
        flip = torch.randint(len(self.flips), (samples,), generator=generator)
        if self.alternate:  # K. Jordan, arXiv 2404.00498, section 3.6; here of any number of axes
            once = torch.Generator().manual_seed(seed.of_training)
            start = torch.randint(len(self.flips), (samples,), generator=once)
            flip = (start + seed.epoch) % len(self.flips)
        first = [torch.randint(2 * p + 1, (samples,), generator=generator) for p in self.translate]
        hole = None
        if self.cutout:  # T. DeVries and G. Taylor, arXiv 1708.04552; here inside the image
            places = [torch.randint(n - self.cutout + 1, (samples,), generator=generator) for n in self.image]
            hole = torch.stack(places, dim=1)
        return Transforms(flip, torch.stack(first, dim=1), hole)


@dataclass(frozen=True, kw_only=True)
class AugmentedSamples(Samples):
    """The training split, augmented; ``inputs`` is the region that is not flipped.

    Attributes:
        augmentation: what may be done.
        regions: for each of its flips (n, C, *region), the same tensor where regions are the same.
        start: first pixel of the box in the image.
        block: pixels along each axis that are averaged to one; 1 but for the coarse subdomain.
        transforms: those of the epoch; None: the images are as they are.
    """

    augmentation: Augmentation
    regions: tuple[torch.Tensor, ...]
    start: tuple[int, ...]
    block: tuple[int, ...]
    transforms: Transforms | None = None

    def in_epoch(self, seed: AugmentationSeed) -> Self:
        """The samples as one epoch sees them."""
        return self.with_transforms(self.augmentation.draw(len(self), seed))

    def with_transforms(self, transforms: Transforms) -> Self:
        """The samples with other transforms."""
        return replace(self, transforms=transforms.to(self.inputs.device))

    def evaluated(self, rows: Rows) -> Sequence[torch.Tensor]:
        """See :meth:`Samples.evaluated`."""
        if not self.augmentation.test_flip:
            return super().evaluated(rows)
        n, device = len(self), self.inputs.device
        untranslated = torch.tensor(self.augmentation.translate, device=device).expand(n, -1)
        flips = torch.arange(len(self.augmentation.flips), device=device)
        return [self.with_transforms(Transforms(flip.expand(n), untranslated)).batch(rows)[0] for flip in flips]

    def renew(self, other: Self) -> None:
        """See :meth:`Samples.renew`."""
        assert self.transforms is not None and other.transforms is not None  # noqa: PT018
        self.transforms.copy_(other.transforms)

    def batch(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`Samples.batch`; what is cut out is 0, the mean of the training split."""
        inputs, labels = super().batch(rows)
        if self.transforms is not None and self.transforms.hole is not None:
            inputs.mul_(onto(self._kept(self.transforms.hole[rows]), inputs.device).unsqueeze(1))
        return inputs, labels

    def _kept(self, hole: torch.Tensor) -> torch.Tensor:
        """The part of each pixel that is not cut out, float32 (b, *spatial), of holes (b, axes)."""
        axes, cut = range(len(self.start)), torch.ones(())
        for axis, (start, n, block) in enumerate(zip(self.start, self._box_shape, self.block, strict=True)):
            pixels = torch.arange(start, start + n, device=hole.device) - hole[:, axis, None]
            inside = ((pixels >= 0) & (pixels < self.augmentation.cutout)).float().unsqueeze(1)
            inside = functional.avg_pool1d(inside, block, ceil_mode=True, count_include_pad=False)
            cut = cut * inside.view(len(hole), *[-1 if axis == a else 1 for a in axes])
        return 1 - cut

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) of a subimage."""
        return (self.inputs.shape[1], *coarse_shape(self._box_shape, self.block))

    @property
    def _box_shape(self) -> list[int]:
        """Pixels of a subimage along each axis, before anything is averaged."""
        return [n - 2 * p for n, p in zip(self.inputs.shape[2:], self.augmentation.translate, strict=True)]

    def pixels(self, rows: Rows) -> torch.Tensor:
        """Stored pixels of some rows, (b, C, *spatial): cut from the regions, or the images as they are."""
        if self.transforms is None:
            index = [slice(p, n - p) for p, n in zip(self.augmentation.translate, self.inputs.shape[2:], strict=True)]
            images = self.inputs[:, :, *index][rows]
        else:
            if isinstance(rows, slice):
                rows = torch.arange(*rows.indices(len(self)), device=self.inputs.device)
            cut = self._cut if self.inputs.device.type == "cpu" else self._gathered
            images = cut(rows, self.transforms.flip[rows], self.transforms.first[rows]).view(self.inputs.dtype)
        return average_of_tensor(images, self.block)

    def _cut(self, rows: torch.Tensor, flip: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Window by window, the fastest way on a CPU."""
        size = self._box_shape
        images = bits_of(self.inputs).new_empty((len(rows), self.inputs.shape[1], *size))
        for number, (axes, region) in enumerate(zip(self.augmentation.flips, self.regions, strict=True)):
            chosen = (flip == number).nonzero().squeeze(1)
            windows = bits_of(region)
            for axis, n in enumerate(size):
                windows = windows.unfold(2 + axis, n, 1)
            # (n, C, first pixel along each axis ..., pixels of the window ...): one index takes both.
            offsets: list[torch.Tensor] = list(torch.unbind(first[chosen], dim=1))
            cut: torch.Tensor = windows[rows[chosen], :, *offsets]  # type: ignore[index]  # mypy takes the star for objects
            images[chosen] = cut.flip([2 + axis for axis in axes])
        return images

    def _gathered(self, rows: torch.Tensor, flip: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Pixel by pixel out of every region: which samples are flipped, a GPU need not report to the host."""
        size, axes, (flipped, region_of) = self._box_shape, range(len(self._box_shape)), self._tables
        flat = rows.view(-1, *[1 for _ in axes])
        for axis, n in enumerate(size):
            forward = torch.arange(n, device=flip.device)
            offset = torch.where(flipped[flip, axis, None], n - 1 - forward, forward) + first[:, axis, None]
            flat = flat * self.inputs.shape[2 + axis] + offset.view(-1, *[n if axis == a else 1 for a in axes])
        regions = list(dict.fromkeys(self.regions))
        gathered = [bits_of(r).movedim(1, -1).flatten(0, -2).index_select(0, flat.flatten()) for r in regions]
        images, *others = (pixels.view(*flat.shape, -1).movedim(-1, 1) for pixels in gathered)
        for number, other in enumerate(others, 1):
            images = torch.where((region_of[flip] == number).view(-1, 1, *[1 for _ in axes]), other, images)
        return images

    @functools.cached_property
    def _tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For each of the flips whether an axis is flipped, and which of the different regions shows it."""
        flips, axes, different = self.augmentation.flips, range(len(self._box_shape)), list(dict.fromkeys(self.regions))
        flipped = [[axis in flip for axis in axes] for flip in flips]
        numbers = [next(k for k, other in enumerate(different) if other is region) for region in self.regions]
        return tuple(torch.tensor(table, device=self.inputs.device) for table in (flipped, numbers))  # type: ignore[return-value]
