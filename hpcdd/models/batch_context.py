"""The batch of the present training step, for layers whose results depend on rows that other ranks have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch


class SharingRanks(Protocol):
    """The ranks that share batches."""

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """A tensor (n,) of each rank, as (ranks, n)."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the ranks."""


class Shard(Protocol):
    """This rank's shard of one batch: which of its ``total`` rows."""

    @property
    def rows(self) -> slice:
        """The rows of this rank."""

    @property
    def total(self) -> int:
        """Number of rows of the batch."""

    @property
    def sharing(self) -> SharingRanks:
        """The ranks that have the other rows."""


class BatchContext:
    """The context that layers read during a step.

    Attributes:
        shard: of the step's batch; None outside of steps, where the input of a layer is the whole batch.
    """

    def __init__(self) -> None:
        self.shard: Shard | None = None

    @contextlib.contextmanager
    def of(self, shard: Shard) -> Iterator[None]:
        """Inside the ``with`` block a step works on this shard."""
        self.shard = shard
        try:
            yield
        finally:
            self.shard = None
