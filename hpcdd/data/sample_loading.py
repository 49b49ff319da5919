"""From the file to the samples of a subdomain: read into memory before the training, or streamed during it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch

from ..decomposition.boxes import Subdomain
from .augmentation import Augmentation, AugmentedSamples, Region
from .format import DatasetInfo
from .reading import BoxReader
from .sample_order import Shuffle, order_of
from .samples import Samples, Subimages, with_channels_last
from .split import Indices, labels_of
from .streaming import SampleNumbers, StreamedSamples

Where = Literal["device", "memory", "stream"]
"""Where a rank keeps its samples: with the CNNs; in the host's memory, from which batches are copied to the device; in
the file. What is trained does not depend on it."""


@dataclass(frozen=True)
class Loader:
    """Gives the samples of any subdomain, for a training on one device.

    Attributes:
        info: of the file.
        rows: which stored rows make up each split of the run, see :func:`hpcdd.data.split.split_rows`.
        augmentation: of the training split; None without.
        reader: of the file.
        device: where batches are wanted.
        where: samples are kept.
        blocks: of the order in which a training visits them, see :func:`hpcdd.data.sample_order.order_of`.
    """

    info: DatasetInfo
    rows: Mapping[str, tuple[str, Indices | None]]
    augmentation: Augmentation | None
    reader: BoxReader
    device: str
    where: Where
    blocks: int

    def load(self, subdomain: Subdomain) -> dict[str, Subimages]:
        """The samples by split; reads this subdomain's box and nothing else.

        Raises:
            UserError: the file is damaged. What is streamed is read, and found to be damaged, later.
        """
        if self.where == "stream":
            return {split: self._streamed(subdomain, split) for split in self.rows}
        samples: dict[str, Subimages] = {}
        for split in self.rows:
            if (augmentation := self._augmentation(split)) is not None:
                samples[split] = self._augmented(
                    subdomain, split, augmentation, self.rows[split][1], self._labels(split)
                )
        by_name: dict[str, list[str]] = {}  # splits that are parts of the same stored split are read together
        for split, (name, _) in self.rows.items():
            if split not in samples:
                by_name.setdefault(name, []).append(split)
        for name, splits in by_name.items():
            parts = self._read(subdomain, name, [self.rows[split][1] for split in splits])
            for split, images in zip(splits, parts, strict=True):
                samples[split] = self._samples(images, self._labels(split), split)
        return {split: samples[split] for split in self.rows}

    def _streamed(self, subdomain: Subdomain, split: str) -> StreamedSamples:
        return StreamedSamples(
            self._labels(split).to(self.device),
            (self.info.image_shape[0], *subdomain.shape),
            partial(self._some, subdomain, split),
            self._order(split),
            self._augmentation(split),
        )

    def _some(self, subdomain: Subdomain, split: str, numbers: SampleNumbers) -> Samples:
        """Some samples of a split, by their ascending numbers within it."""
        name, rows = self.rows[split]
        stored, labels = numbers if rows is None else rows[numbers], self._labels(split)[torch.from_numpy(numbers)]
        if (augmentation := self._augmentation(split)) is not None:
            return self._augmented(subdomain, split, augmentation, stored, labels)
        (images,) = self._read(subdomain, name, [stored])
        return self._samples(images, labels, split)

    def _read(self, subdomain: Subdomain, name: str, parts: Sequence[Indices | None]) -> list[torch.Tensor]:
        block = subdomain.block if subdomain.is_coarse else None
        parts_read = self.reader.read_rows(name, subdomain.box, parts, block)
        return [with_channels_last(torch.from_numpy(images)) for images in parts_read]

    def _augmentation(self, split: str) -> Augmentation | None:
        return augmentation_of(split, self.augmentation)

    def _augmented(
        self,
        subdomain: Subdomain,
        split: str,
        augmentation: Augmentation,
        rows: Indices | None,
        labels: torch.Tensor,
    ) -> AugmentedSamples:
        """Samples with what their augmentation needs."""
        read: dict[Region, torch.Tensor] = {}
        regions = augmentation.regions(subdomain.box, self.info.image_shape[1:])
        for region in dict.fromkeys(regions):
            (images,) = self.reader.read_rows(self.rows[split][0], region.box, [rows], padding=region.padding)
            read[region] = with_channels_last(torch.from_numpy(images)).to(self._kept)
        plain = self._samples(read[regions[0]], labels, split)
        return AugmentedSamples(
            plain.inputs,
            plain.labels,
            plain.mean,
            plain.std,
            order=plain.order,
            augmentation=augmentation,
            regions=tuple(read[region] for region in regions),
            start=subdomain.box.start,
            block=subdomain.block,
        )

    def _samples(self, images: torch.Tensor, labels: torch.Tensor, split: str) -> Samples:
        mean, std = self.info.mean, self.info.std
        return Samples.of_images(images, labels, mean, std, self.device, kept=self._kept, order=self._order(split))

    def _labels(self, split: str) -> torch.Tensor:
        return torch.from_numpy(labels_of(self.info, self.rows[split]))

    def _order(self, split: str) -> Shuffle:
        if split != "train":
            return Shuffle()
        regions = 1 if self.augmentation is None else len(self.augmentation.flips)
        return order_of(self.info, self.rows["train"][1], self.blocks, regions)

    @property
    def _kept(self) -> str:
        return self.device if self.where == "device" else "cpu"


def augmentation_of(split: str, augmentation: Augmentation | None) -> Augmentation | None:
    """What is done to the samples of a split, of what is done to those that CNNs are trained on."""
    if augmentation is None:
        return None
    return augmentation.of_training if split == "train" else augmentation.of_evaluation


def bytes_in_memory(
    info: DatasetInfo, samples: Mapping[str, int], subdomain: Subdomain, augmentation: Augmentation | None
) -> int:
    """Bytes that a subdomain's samples take where they are not streamed.

    Args:
        info: of the file.
        samples: number of samples by split.
        subdomain: which pixels.
        augmentation: of the training split; None without.
    """
    plain, pixels = math.prod(subdomain.shape), 0
    for split, n in samples.items():
        of_each = plain
        if (of_split := augmentation_of(split, augmentation)) is not None:
            regions = set(of_split.regions(subdomain.box, info.image_shape[1:]))
            of_each = sum(
                math.prod(n + a + b for n, (a, b) in zip(region.box.shape, region.padding, strict=True))
                for region in regions
            )
        pixels += n * of_each
    return pixels * info.image_shape[0] * np.dtype(info.dtype).itemsize
