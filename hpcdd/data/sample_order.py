"""The order in which a training visits its samples: a function of the seed and of the file, never of the rank.

It is the same wherever the samples are kept: so it is one that can be read from a file window by window.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from ..decomposition.boxes import split_evenly
from .format import DatasetInfo

WINDOW_BYTES = 64 << 20
"""Bytes of whole images in a window: each subdomain's part of it is in memory while a streamed one is visited."""


def blocks_in_window(num_classes: int) -> int:
    """Least number of blocks in a full window of a data set with K classes.

    Of a file that is sorted by class each window then gets four blocks of each class, one more or less at either end of
    the class; where a window has room for fewer samples, each is a block of its own.
    """
    return max(16, 4 * num_classes)


def order_of(info: DatasetInfo, rows: npt.NDArray[np.int64] | None, blocks: int, divisor: int = 1) -> Shuffle:
    """The order of a training split.

    Args:
        info: of the file, which fixes blocks and windows.
        rows: ascending, the split's rows of the stored training split; None for all.
        blocks: least number of them in a full window, see :func:`blocks_in_window`; 0 for no blocks: windows of samples
            from anywhere.
        divisor: how many times each image is read; windows hold fewer images by this factor.
    """
    image_bytes = int(np.prod(info.image_shape)) * np.dtype(info.dtype).itemsize
    window = max(1, WINDOW_BYTES // (image_bytes * divisor))
    stored = np.arange(len(info.labels["train"])) if rows is None else rows
    windows = max(1, -(-len(stored) // window))
    if not blocks:
        return Shuffle(windows)
    size = max(1, min(info.rows_at_once, window // blocks))
    return BlockShuffle(windows, block=torch.from_numpy(stored // size))


@dataclass(frozen=True)
class Shuffle:
    """All samples in a random order.

    Attributes:
        windows: W, in which it is read where the samples are not in memory.
    """

    windows: int = 1

    def draw(self, samples: int, seed: int) -> tuple[torch.Tensor, list[int]]:
        """The order of an epoch.

        Args:
            samples: n.
            seed: of the epoch.

        Returns:
            int64 (n,) on the CPU, drawn there so that it does not depend on the device; and where its windows end.
        """
        order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
        return order, [stop for _, stop in split_evenly(samples, min(samples, self.windows))]


@dataclass(frozen=True)
class BlockShuffle(Shuffle):
    """Blocks of consecutive stored rows dealt to windows at random; window by window all its samples in a random order.

    Of any W neighbouring blocks each of the W windows gets one, so that a window is like the whole split even where
    the file is sorted by class. A split that is no larger than a window is visited as by :class:`Shuffle`.

    Attributes:
        block: int64 (n,) ascending, the number of the block that holds each sample.
    """

    block: torch.Tensor = field(kw_only=True)

    def draw(self, samples: int, seed: int) -> tuple[torch.Tensor, list[int]]:
        """See :meth:`Shuffle.draw`."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(samples, generator=generator)
        if self.windows == 1:
            return order, [samples]
        _, number, counts = torch.unique_consecutive(self.block, return_inverse=True, return_counts=True)
        rounds = -(-len(counts) // self.windows)
        dealt = torch.rand(rounds, self.windows, generator=generator).argsort(dim=1).flatten()
        window = dealt[number]
        sizes = torch.bincount(window, minlength=self.windows)
        ends = sizes[sizes > 0].cumsum(0)
        return order[window[order].argsort(stable=True)], ends.tolist()
