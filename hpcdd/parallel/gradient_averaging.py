"""Averaging of gradients over the ranks that share batches, overlapped with the backward pass.

Gradients are copied into flat buckets as they become ready, the last layers' first; each full bucket is on its way
(a nonblocking allreduce) while the gradients of earlier layers are still being computed. Where MPI gets a GPU's own
memory the buckets follow behind the backward pass: MPI libraries add there in blocking calls only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from ..mpi.communicator import Comm
from .batch_shards import BatchSharing, Flag
from .host_staging import Staging

if TYPE_CHECKING:
    from mpi4py import MPI

BUCKETS = 4
_SMALLEST, _LARGEST = 1 << 14, 1 << 20
"""Numbers in a bucket: there are about :data:`BUCKETS`, but none so small that latency counts, or too large."""


class _Bucket:
    """Gradients of some parameters in one buffer, with one more number for the flag."""

    def __init__(self, parameters: list[nn.Parameter], staging: Staging) -> None:
        self.parameters, self.staging, self.device = parameters, staging, parameters[0].device
        size = sum(p.numel() for p in parameters) + 1
        self.mine, self.total = staging.pair(size, parameters[0].dtype, self.device)
        self.mine.zero_()
        self.request: MPI.Request | None = None
        self.full = False
        self.missing = len(parameters)
        self._starts: dict[nn.Parameter, int] = {}
        start = 0
        for p in parameters:
            self._starts[p] = start
            start += p.numel()

    def put(self, p: nn.Parameter) -> None:
        self._piece(self.mine, p).copy_(p.grad, non_blocking=True)  # type: ignore[arg-type]  # it is there: its hook
        self.missing -= 1

    def take(self) -> None:
        for p in self.parameters:
            if p.grad is not None:
                p.grad.copy_(self._piece(self.total, p), non_blocking=True)
        self.mine.zero_()
        self.request, self.full, self.missing = None, False, len(self.parameters)

    def for_mpi(self) -> tuple[Any, Any]:
        """What is sent and what is received, once the device has come that far."""
        self.staging.ready(self.device)
        return self.staging.for_mpi(self.mine), self.staging.for_mpi(self.total)

    def _piece(self, buffer: torch.Tensor, p: nn.Parameter) -> torch.Tensor:
        start = self._starts[p]
        return buffer[start : start + p.numel()].view(p.shape)


class GradientAverage:
    """Adds the gradients of all sharing ranks; a context manager, in which hooks stand on the parameters.

    Args:
        network: its trainable parameters; the same on every rank of ``sharing``.
        sharing: whose ranks, with losses that are weighted by :attr:`BatchShard.weight`.
        replicated: parameters whose copies exist beyond these ranks. Their gradients are added in the ranks'
            order, so that all copies everywhere get the same bits.
    """

    def __init__(self, network: nn.Module, sharing: BatchSharing, replicated: Collection[nn.Parameter] = ()) -> None:
        self._sharing = sharing
        self._buckets: list[_Bucket] = []
        self._replicated: _Bucket | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._bucket_of: dict[nn.Parameter, _Bucket] = {}
        if sharing.comm is None:
            return
        special = set(replicated)
        trainable = [p for p in network.parameters() if p.requires_grad]
        others = groups([p for p in reversed(trainable) if p not in special])
        self._buckets = [_Bucket(group, Staging(direct=sharing.direct)) for group in others]
        self._replicated = _Bucket(group, Staging()) if (group := [p for p in trainable if p in special]) else None
        for bucket in [*self._buckets, *([self._replicated] if self._replicated else [])]:
            self._bucket_of.update(dict.fromkeys(bucket.parameters, bucket))

    def __enter__(self) -> Self:
        self._handles = [
            p.register_post_accumulate_grad_hook(self._ready)  # type: ignore[no-untyped-call]
            for p in self._bucket_of
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def finish(self) -> None:
        """To be called after the backward pass: waits, and leaves the averaged gradients in the parameters."""
        comm, flag = self._sharing.comm, self._sharing.flag
        if comm is None:
            return
        for bucket in self._buckets:
            if not bucket.full:  # a parameter in it got no gradient
                self._start(bucket, comm, flag)
        for bucket in self._buckets:
            if bucket.request is None:
                comm.sum(*bucket.for_mpi())
            else:
                comm.finish_sum(bucket.request)
            if bucket is self._buckets[-1]:
                flag.value = float(bucket.total[-1])
            bucket.take()
        if self._replicated is not None:
            mine, _ = self._replicated.for_mpi()
            everyone = torch.empty(comm.size, len(mine), dtype=self._replicated.mine.dtype)
            comm.allgather(mine, everyone.numpy())
            self._replicated.total.copy_(everyone[0])
            for one in everyone[1:]:
                self._replicated.total.add_(one)
            self._replicated.take()

    def _ready(self, p: nn.Parameter) -> None:
        bucket = self._bucket_of[p]
        bucket.put(p)
        comm = self._sharing.comm
        if not bucket.missing and bucket is not self._replicated and comm is not None:
            self._start(bucket, comm, self._sharing.flag)

    def _start(self, bucket: _Bucket, comm: Comm, flag: Flag) -> None:
        if bucket is self._buckets[-1]:  # the first layers: by now the flag knows all that the forward pass brought
            bucket.mine[-1] = flag.value
        bucket.full = True
        if not bucket.staging.direct:
            bucket.request = comm.start_sum(*bucket.for_mpi())


def groups(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Neighbours in groups of about equal size."""
    parameters = list(parameters)
    size = min(_LARGEST, max(_SMALLEST, sum(p.numel() for p in parameters) // BUCKETS))
    groups: list[list[nn.Parameter]] = [[]]
    filled = 0
    for p in parameters:
        if filled and filled + p.numel() > size:
            groups.append([])
            filled = 0
        groups[-1].append(p)
        filled += p.numel()
    return groups
