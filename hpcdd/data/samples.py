"""The samples of one split as a CNN sees them: stored as they are, normalised batch by batch on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(axes: int) -> torch.memory_format:
    """The memory format in which convolutions over ``axes`` spatial axes run fastest."""
    return _CHANNELS_LAST[axes + 2]


@dataclass(frozen=True)
class Samples:
    """One split on one device.

    Attributes:
        inputs: (n, C, *spatial) of the stored dtype; or float32 features (n, F).
        labels: int64 (n,).
        mean, std: of the training split per channel, to normalise integers and floats alike; None for features.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    mean: torch.Tensor | None = None
    std: torch.Tensor | None = None

    @classmethod
    def of_images(
        cls, images: torch.Tensor, labels: torch.Tensor, mean: Sequence[float], std: Sequence[float], device: str
    ) -> Samples:
        """Puts subimages (n, C, *spatial) and labels (n,) on ``device``; mean and std have one number per channel."""
        shape = (1, images.shape[1], *[1] * (images.ndim - 2))
        statistics = [torch.tensor(v, dtype=torch.float32, device=device).view(shape) for v in (mean, std)]
        return cls(images.to(device), labels.to(device), *statistics)

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) of a subimage, or (F,)."""
        return tuple(self.inputs.shape[1:])

    def in_epoch(self, _seed: int) -> Self:
        """The samples as one epoch of a training sees them: these, always."""
        return self

    def batch(self, rows: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels of some rows: float32 (b, C, *spatial) or (b, F), normalised, and int64 (b,)."""
        inputs = self._pixels(rows)
        if self.mean is None or self.std is None:
            return inputs, self.labels[rows]
        images = inputs.to(torch.float32, memory_format=_CHANNELS_LAST[inputs.ndim])
        return images.sub(self.mean).div_(self.std), self.labels[rows]

    def _pixels(self, rows: torch.Tensor | slice) -> torch.Tensor:
        """Inputs of some rows as they are stored."""
        return self.inputs[rows]


@dataclass(frozen=True)
class SideBySide:
    """One split of several subdomains: the same samples in the same order, seen by a network with several inputs.

    Attributes:
        parts: one for each subdomain; all have the same labels.
    """

    parts: Sequence[Samples]

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def labels(self) -> torch.Tensor:
        """int64 (n,)."""
        return self.parts[0].labels

    def in_epoch(self, seed: int) -> Self:
        """The samples as one epoch sees them: all parts show the same view of each."""
        return replace(self, parts=[part.in_epoch(seed) for part in self.parts])

    def batch(self, rows: torch.Tensor | slice) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Each subdomain's inputs of some rows, as :meth:`Samples.batch` gives them, and the labels, int64 (b,)."""
        return [part.batch(rows)[0] for part in self.parts], self.labels[rows]
