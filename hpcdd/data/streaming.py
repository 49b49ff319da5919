"""Samples that stay in the file: a thread reads them window by window, while the training visits the window before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .augmentation import Augmentation, AugmentedSamples
from .sample_order import Shuffle
from .samples import AugmentationSeed, Batches, Rows, Samples, channels_last

SampleNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StreamedSamples:
    """One split of one subdomain, read when it is needed. Two windows of it are in memory at the most.

    Attributes:
        labels: int64 (n,), on the device of the training.
        shape: (C, *spatial) of a subimage.
        load: reads some samples, named by ascending numbers from 0 to n - 1, into the host's memory.
        order: how a training visits them.
        augmentation: of the images; None without.

    Reading raises :class:`hpcdd.core.errors.UserError`: from :meth:`batch`, of an epoch or of this object.
    """

    labels: torch.Tensor
    shape: tuple[int, ...]
    load: Callable[[SampleNumbers], Samples]
    order: Shuffle
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        """N."""
        return len(self.labels)

    @contextmanager
    def epoch(
        self, order_seed: int, augmentation_seed: AugmentationSeed, start: int = 0
    ) -> Iterator[tuple[torch.Tensor, Batches]]:
        """See :meth:`hpcdd.data.samples.AnySamples.epoch`; the thread ends with the context."""
        order, ends = self.order.draw(len(self), order_seed)
        transforms = None if self.augmentation is None else self.augmentation.draw(len(self), augmentation_seed)

        def read(window: torch.Tensor) -> Samples:
            samples = self.load(window.numpy())
            if transforms is not None and isinstance(samples, AugmentedSamples):
                return samples.with_transforms(transforms.of(window))
            return samples

        pool = ThreadPoolExecutor(1, thread_name_prefix="hpcdd-stream")
        try:
            yield order, _Windows(order, ends, read, pool, start)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def evaluated(self, rows: Rows) -> Sequence[torch.Tensor]:
        """See :meth:`hpcdd.data.samples.AnySamples.evaluated`; read once for all flips."""
        samples, where = self._some(rows)
        return samples.evaluated(where)

    def _some(self, rows: Rows) -> tuple[Samples, torch.Tensor]:
        """Samples that hold some rows, read now, and the positions of these rows in them."""
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)))
        numbers, where = torch.unique(rows.cpu(), return_inverse=True)
        return self.load(numbers.numpy()), where

    def batch(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`hpcdd.data.samples.Samples.batch`: of any rows, as they are, read now."""
        samples, where = self._some(rows)
        return samples.batch(where)


class _Windows:
    """Batches of one epoch, to be asked for in its order.

    Args:
        order: int64 (n,).
        ends: where the windows end in it.
        read: reads the samples of a window, ascending.
        pool: of one thread, which reads the next window.
        start: of the order; what comes before is not asked for, and windows that end there are not read.
    """

    def __init__(
        self,
        order: torch.Tensor,
        ends: list[int],
        read: Callable[[torch.Tensor], Samples],
        pool: ThreadPoolExecutor,
        start: int = 0,
    ) -> None:
        self._order, self._read, self._pool = order, read, pool
        self._position = torch.empty_like(order)
        self._position[order] = torch.arange(len(order))
        self._limits = ((a, b) for a, b in zip([0, *ends], ends, strict=False) if b > start)
        self._start = self._stop = 0
        self._samples: Samples | None = None
        self._next = self._prefetch()

    def batch(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels of some rows, which follow in the epoch's order on those that were asked for before."""
        positions = self._position[rows]
        inputs, labels = [], []
        while True:
            if self._samples is None:
                self._samples = self._advance()
            inside = positions < self._stop
            assert bool((positions >= self._start).all()), "rows of a window that is gone: not in the epoch's order"
            slots = self._slots[positions[inside] - self._start]
            window_inputs, window_labels = self._samples.batch(slots)
            inputs.append(window_inputs)
            labels.append(window_labels)
            positions = positions[~inside]
            if not len(positions):
                joined = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
                return joined.contiguous(memory_format=channels_last(joined.ndim - 2)), torch.cat(labels)
            self._samples = None  # so that three windows are never in memory

    def _advance(self) -> Samples:
        """The next window, when it is there; the one after it is begun."""
        assert self._next is not None, "rows beyond the last window"
        self._start, self._stop, self._slots, window = self._next
        samples = window.result()
        self._next = self._prefetch()
        return samples

    def _prefetch(self) -> tuple[int, int, torch.Tensor, Future[Samples]] | None:
        limits = next(self._limits, None)
        if limits is None:
            return None
        start, stop = limits
        rows, sorted_from = self._order[start:stop].sort()
        slots = torch.empty_like(sorted_from)
        slots[sorted_from] = torch.arange(stop - start)
        return start, stop, slots, self._pool.submit(self._read, rows)
