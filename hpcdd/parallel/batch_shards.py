"""Shards of a batch: what ranks do that train copies of one network on one batch together.

Replicas of a local CNN, the data-parallel coherent model and the baseline all work this way: every rank computes the
gradient of its rows' part of the loss, and the parts are added.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..core.errors import DivergedError, StopRequest
from ..decomposition.boxes import split_evenly
from ..models.serialization import pack, unpack
from ..mpi.communicator import Comm
from .host_staging import Staging

_SAVE = 1 << 20
"""A wish for a checkpoint in the flag's value, beside up to as many wishes to stop; exact in float32."""
DIVERGED = 1 << 48
"""In the flag's value, beyond all wishes: a rank's numbers are not finite. The sum over 2**14 ranks fits in int64."""


def never() -> bool:
    """Nothing is due."""
    return False


class Flag:
    """Wishes to stop, and for a checkpoint; and that a rank's numbers are no longer finite.

    They are piggybacked on the messages of a training step, and all ranks see them behind it, so that no rank leaves
    while the others wait for its next message.

    Args:
        wanted: whether this rank wishes to stop.

    Attributes:
        value: after a step's messages the sum of all ranks' wishes when the step began, on every rank.
        reason: why this rank's numbers can't be trained on with; None where they can.
    """

    def __init__(self, wanted: Callable[[], bool] = never) -> None:
        self._wanted = wanted
        self._overdue: Callable[[], bool] = never
        self._held = False
        self.value = 0.0
        self.reason: str | None = None

    @contextlib.contextmanager
    def in_training(self, overdue: Callable[[], bool]) -> Iterator[None]:
        """Inside the ``with`` block a training runs.

        Args:
            overdue: whether this rank wishes a checkpoint.
        """
        self._overdue, self._held = overdue, True
        try:
            yield
        finally:
            self._overdue, self._held = never, False
            self.value, self.reason = 0.0, None

    def piggybacked(self) -> None:
        """To be called when a step begins."""
        diverged = self.reason is not None
        self.value = float(self._wanted()) + _SAVE * float(self._overdue()) + DIVERGED * float(diverged)

    def diverge(self, reason: str, *, heard: bool = False) -> None:
        """Numbers are not finite: in a training that is held until its ranks know, see :meth:`check_divergence`.

        Args:
            reason: what was found.
            heard: by another rank.

        Raises:
            DivergedError: outside of a training.
        """
        if not self._held:
            raise DivergedError(reason, heard=heard)
        if not heard and self.reason is None:
            self.reason = reason

    def check_divergence(self) -> None:
        """To be called behind a step's messages, before the parameters change.

        Raises:
            DivergedError: on all ranks of the step.
        """
        if self.value >= DIVERGED:
            heard = self.reason is None
            raise DivergedError(self.reason or "another rank has numbers that are not finite", heard=heard)

    @property
    def save(self) -> bool:
        """Whether any rank wished a checkpoint."""
        return self.value >= _SAVE

    def check(self, phase: str) -> None:
        """To be called behind a step; what it brought is done with then.

        Raises:
            StopRequest: on all ranks of the step. Whose signal it was :meth:`hpcdd.mpi.stop.Stop.agree` finds
            out.
        """
        stops, self.value = self.value % _SAVE, 0.0
        if stops:
            request = StopRequest(signal.SIGTERM, phase)
            request.shared = True
            raise request


def broadcast_state(comm: Comm, network: nn.Module, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Collective: root's ``state`` (default: its network's own) into the networks of all ranks."""
    template = network.state_dict()
    buffer = pack(template if state is None or not comm.is_root else state)
    comm.broadcast(buffer)
    network.load_state_dict(unpack(buffer, template))


@dataclass(frozen=True)
class BatchShard:
    """This rank's part of one batch.

    Attributes:
        samples: int64 (b,), which samples they are.
        rows: their places in the batch.
        total: rows of the batch, on all ranks together.
        sharing: with whom it is shared.
    """

    samples: torch.Tensor
    rows: slice
    total: int
    sharing: BatchSharing

    @property
    def weight(self) -> float:
        """Its part of the batch; with it the shards' mean losses add up to the batch's mean loss."""
        return len(self.samples) / max(1, self.total)


class BatchSharing:
    """With whom this rank shares every batch.

    Args:
        comm: the ranks that share batches; None (or one rank) takes whole batches and sends nothing.
        flag: is piggybacked on the messages.
        exact: batch norm and dropout as on one rank, see ``shared_batches`` in :mod:`hpcdd.config.schema`.
        direct: messages are sent from where the numbers are, see :class:`hpcdd.parallel.host_staging.Staging`.

    Attributes:
        comm: the ranks, if they are two or more.
        flag, exact, direct: see above.
    """

    def __init__(
        self, comm: Comm | None = None, flag: Flag | None = None, exact: bool = True, *, direct: bool = False
    ) -> None:
        self.comm = comm if comm is not None and comm.size > 1 else None
        self.flag = flag or Flag()
        self.exact, self.direct = exact, direct
        self._staging = Staging(direct=direct)

    @property
    def stream(self) -> str:
        """What is added to the purpose of random numbers: where masks are not shared each rank but the first has its
        own; else all draw those of the whole batch.
        """
        if self.comm is None or self.exact or self.comm.rank == 0:
            return ""
        return f" of rank {self.comm.rank}"

    def part_of(self, n: int) -> slice:
        """Which of n rows are this rank's: a balanced, contiguous part."""
        if self.comm is None:
            return slice(0, n)
        return slice(*split_evenly(n, self.comm.size)[self.comm.rank])

    def most_of(self, n: int) -> int:
        """Of n rows as many as any rank has at most; at least one."""
        return n if self.comm is None else -(-n // self.comm.size)

    def shard(self, batch: torch.Tensor) -> BatchShard:
        """This rank's part of a batch of samples, int64 (b,)."""
        rows = self.part_of(len(batch))
        return BatchShard(batch[rows], rows, len(batch), self)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the sharing ranks of a small tensor, the same on each of them."""
        if self.comm is None:
            return values
        staging, device = self._staging, values.device
        mine, total = staging.pair(values.numel(), values.dtype, device)
        mine.copy_(values.detach().reshape(-1), non_blocking=True)
        staging.ready(device)
        self.comm.sum(staging.for_mpi(mine), staging.for_mpi(total))
        return total.to(device, non_blocking=True).view(values.shape)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """A small tensor (n,) of each of the sharing ranks, as (ranks, n) in their order, on each of them."""
        if self.comm is None:
            return values.unsqueeze(0)
        staging, device, ranks = self._staging, values.device, self.comm.size
        mine, everyone = staging.pair(len(values), values.dtype, device, ranks)
        mine.copy_(values.detach(), non_blocking=True)
        staging.ready(device)
        self.comm.allgather(staging.for_mpi(mine), staging.for_mpi(everyone))
        return everyone.to(device, non_blocking=True).view(ranks, -1)

    def all_gather(self, part: torch.Tensor, n: int) -> torch.Tensor:
        """Rows that each rank has for its part of n, gathered to all n on every rank; float32 on the CPU."""
        if self.comm is None:
            return part
        longest = split_evenly(n, self.comm.size)[0][1]
        padded = torch.zeros(longest, *part.shape[1:])
        padded[: len(part)] = part
        whole = torch.empty(self.comm.size, *padded.shape)
        self.comm.allgather(padded.numpy(), whole.numpy())
        return torch.cat([whole[r, : b - a] for r, (a, b) in enumerate(split_evenly(n, self.comm.size))])

    def average_buffers(self, network: nn.Module) -> None:
        """Makes batch norm's running statistics, which each rank took over its own rows, their mean over the ranks."""
        if self.comm is None or self.exact:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self.sum(buffer) / self.comm.size)
