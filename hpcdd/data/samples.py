"""The samples of one split as a CNN sees them: stored as they are, normalised batch by batch on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

import torch

from .sample_order import Shuffle

_MEMORY_FORMAT = {4: torch.channels_last, 5: torch.channels_last_3d}
_CHUNK_BYTES = 1 << 22
"""Bytes that are moved at once."""
Rows = torch.Tensor | slice


def channels_last(axes: int) -> torch.memory_format:
    """The memory format in which convolutions over ``axes`` spatial axes run fastest."""
    return _MEMORY_FORMAT[axes + 2]


def with_channels_last(images: torch.Tensor) -> torch.Tensor:
    """The images (n, C, *spatial) in the memory format of :func:`channels_last`, in their own memory.

    The contiguous images are overwritten; in addition, the conversion needs a buffer of bounded size.
    """
    each = max(1, _CHUNK_BYTES // max(1, images[:1].nbytes))
    rows = images.flatten(1)
    for chunk, chunk_rows in zip(torch.split(images, each), torch.split(rows, each), strict=True):
        chunk_rows.copy_(_matrix(chunk.contiguous(memory_format=_MEMORY_FORMAT[images.ndim])))
    return _images(rows, images.shape[1:])


def _matrix(images: torch.Tensor) -> torch.Tensor:
    """Images (n, C, *spatial) as rows (n, pixels), channels last: a view where they are so in memory."""
    return images.movedim(1, -1).flatten(1)


def _images(rows: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The inverse of :func:`_matrix`: its rows as images of ``shape`` (C, *spatial), a view."""
    return rows.view(rows.shape[0], *shape[1:], shape[0]).movedim(-1, 1)  # len() would fix the number in an export


def bits_of(images: torch.Tensor) -> torch.Tensor:
    """The images as a dtype of the same width whose elements torch can move: it can neither select nor place uint16."""
    return images.view(torch.int16) if images.dtype == torch.uint16 else images


def normalised(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """What a CNN sees of stored pixels (n, C, *spatial): float32, normalised by ``mean``, ``std`` (1, C, 1, ...)."""
    matrix = _matrix(pixels.to(memory_format=_MEMORY_FORMAT[pixels.ndim]))
    mean, std = (_matrix(v.expand(1, *pixels.shape[1:])) for v in (mean, std))
    return _images(matrix.to(torch.float32, copy=True).sub_(mean).div_(std), pixels.shape[1:])


def onto(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values on ``device``; from the host to a GPU through pinned memory, so that the host need not wait for it."""
    if values.device.type == "cpu" and device.type == "cuda":
        values = values.pin_memory()  # out of torch's cache, which takes it back when the copy is done
    return values.to(device, non_blocking=True)


class AugmentationSeed(NamedTuple):
    """From what the augmentation of an epoch is drawn.

    Attributes:
        of_epoch: seed of what is drawn anew in every epoch.
        of_training: seed of what is drawn once for all epochs.
        epoch: number of the epoch, from 0.
    """

    of_epoch: int
    of_training: int = 0
    epoch: int = 0


class Batches(Protocol):
    """What gives batches of samples."""

    def batch(self, rows: Rows) -> tuple[Any, torch.Tensor]:
        """Inputs and labels of some rows, on the device of the training."""


class AnySamples(Batches, Protocol):
    """One split for a training, wherever its pixels are."""

    def __len__(self) -> int:
        """N."""

    @property
    def labels(self) -> torch.Tensor:
        """int64 (n,), on the device of the training."""

    def epoch(
        self, order_seed: int, augmentation_seed: AugmentationSeed, start: int = 0
    ) -> AbstractContextManager[tuple[torch.Tensor, Batches]]:
        """One epoch.

        Args:
            order_seed: of the order in which the samples are visited.
            augmentation_seed: of their augmentation, if any.
            start: samples of the order that are not asked for, because an earlier job has visited them.

        Returns:
            A context that gives the order, int64 (n,), and what gives batches of it: of rows that follow each other
            in the order.
        """

    def evaluated(self, rows: Rows) -> Sequence[Any]:
        """Inputs of which a network predicts some rows, by the mean over these: as they are, or mirrored."""


class Subimages(AnySamples, Protocol):
    """One split of one subdomain."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) of a subimage."""


@dataclass(frozen=True)
class Samples:
    """One split in memory: that of the device, or that of the host, from which batches are copied to the device.

    Attributes:
        inputs: (n, C, *spatial) of the stored dtype; or float32 features (n, F).
        labels: int64 (n,), on the device.
        mean, std: of the training split per channel, to normalise integers and floats alike; None for features.
        order: how a training visits them.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    mean: torch.Tensor | None = None
    std: torch.Tensor | None = None
    order: Shuffle = field(default=Shuffle(), kw_only=True)

    @classmethod
    def of_images(
        cls,
        images: torch.Tensor,
        labels: torch.Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        device: str,
        *,
        kept: str | None = None,
        order: Shuffle | None = None,
    ) -> Samples:
        """Samples for a training on ``device``.

        Args:
            images: subimages (n, C, *spatial).
            labels: (n,).
            mean, std: one number per channel.
            device: where batches are wanted.
            kept: where the images are kept; default: on ``device``.
            order: default: all in a random order.
        """
        shape = (1, images.shape[1], *[1] * (images.ndim - 2))
        statistics = [torch.tensor(v, dtype=torch.float32, device=device).view(shape) for v in (mean, std)]
        return cls(images.to(kept or device), labels.to(device), *statistics, order=order or Shuffle())

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) of a subimage, or (F,)."""
        return tuple(self.inputs.shape[1:])

    @contextmanager
    def epoch(
        self, order_seed: int, augmentation_seed: AugmentationSeed, start: int = 0
    ) -> Iterator[tuple[torch.Tensor, Batches]]:
        """See :meth:`AnySamples.epoch`."""
        order, _ = self.order.draw(len(self), order_seed)
        yield order.to(self.inputs.device), self.in_epoch(augmentation_seed)

    def evaluated(self, rows: Rows) -> Sequence[torch.Tensor]:
        """See :meth:`AnySamples.evaluated`."""
        return [self.batch(rows)[0]]

    @property
    def fixed(self) -> bool:
        """Whether batches are made on the device alone, out of tensors that stay where they are."""
        return self.inputs.device == self.labels.device

    def renew(self, other: Self) -> None:
        """Takes the augmentation of another epoch's samples over, in the memory of these."""

    def in_epoch(self, _seed: AugmentationSeed) -> Self:
        """The samples as one epoch of a training sees them: these, always."""
        return self

    def batch(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels of some rows: float32 (b, C, *spatial) or (b, F), normalised, and int64 (b,)."""
        return self.normalised(self.pixels(rows)), self.labels_of(rows)

    def labels_of(self, rows: Rows) -> torch.Tensor:
        """int64 (b,) of some rows, which may be named on the host."""
        return self.labels[rows if isinstance(rows, slice) else onto(rows, self.labels.device)]

    def pixels(self, rows: Rows) -> torch.Tensor:
        """Inputs of some rows as they are stored, where they are kept."""
        inputs = self.inputs
        if (
            isinstance(rows, slice)
            or inputs.ndim == 2
            or not inputs.is_contiguous(memory_format=_MEMORY_FORMAT[inputs.ndim])
        ):
            return inputs[rows]
        # As rows of a matrix they are copied at the speed of the memory.
        selected = _matrix(bits_of(inputs)).index_select(0, rows).view(inputs.dtype)
        return _images(selected, inputs.shape[1:])

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Inputs for the network, on the device, from what :meth:`pixels` gives."""
        pixels = onto(pixels, self.labels.device)
        if self.mean is None or self.std is None:
            return pixels
        return normalised(pixels, self.mean, self.std)


@dataclass(frozen=True)
class SideBySide:
    """One split of several subdomains: the same samples in the same order, seen by a network with several inputs.

    Attributes:
        parts: one for each subdomain; all have the same labels.
    """

    parts: Sequence[AnySamples]

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def labels(self) -> torch.Tensor:
        """int64 (n,)."""
        return self.parts[0].labels

    @contextmanager
    def epoch(
        self, order_seed: int, augmentation_seed: AugmentationSeed, start: int = 0
    ) -> Iterator[tuple[torch.Tensor, Batches]]:
        """See :meth:`AnySamples.epoch`; all parts show each sample with the same augmentation, in the same order."""
        with ExitStack() as stack:
            entered = [stack.enter_context(part.epoch(order_seed, augmentation_seed, start)) for part in self.parts]
            yield entered[0][0], _JoinedBatches([seen for _, seen in entered])

    def evaluated(self, rows: Rows) -> Sequence[list[torch.Tensor]]:
        """See :meth:`AnySamples.evaluated`; all parts show the same flip."""
        return [list(inputs) for inputs in zip(*[part.evaluated(rows) for part in self.parts], strict=True)]

    def batch(self, rows: Rows) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Each subdomain's inputs of some rows, as :meth:`Samples.batch` gives them, and the labels, int64 (b,)."""
        return _JoinedBatches(self.parts).batch(rows)


@dataclass(frozen=True)
class _JoinedBatches:
    """Batches of several subdomains."""

    parts: Sequence[Batches]

    def batch(self, rows: Rows) -> tuple[list[torch.Tensor], torch.Tensor]:
        batches = [part.batch(rows) for part in self.parts]
        return [inputs for inputs, _ in batches], batches[0][1]
