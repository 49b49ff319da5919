"""The sum over subdomains: one allreduce of batch x hidden numbers, forward; no message backward.

Let W1 z + b1 be the DNN's first layer and z = (z_0, ..., z_{S-1}) the local CNNs' outputs. With W1 cut into blocks of
columns, h = b1 + sum_s W1_s z_s. Each rank adds the summands of its subdomains, an allreduce adds those of the
ranks, and every rank has h. What follows is computed identically by every rank, so dL/dh is the same everywhere and is
the gradient with respect to each summand: the adjoint of "add and give to all", with what follows counted once, is the
identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch.autograd import Function

from ..mpi.communicator import Comm
from .batch_shards import DIVERGED, Flag
from .host_staging import Staging

FRACTION_BITS = 40
"""Fixed point of an ordered sum: int64 in units of 2**-40, so that |h| can reach 2**22 and a summand is rounded by
2**-41 at most, less than float32 rounds a number of size 2**-17."""


def to_fixed(summand: torch.Tensor) -> torch.Tensor:
    """A summand in fixed point, int64."""
    return (summand.double() * 2.0**FRACTION_BITS).round_().to(torch.int64)


def from_fixed(total: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The reverse, of a sum."""
    return (total.double() * 2.0**-FRACTION_BITS).to(dtype)


def sum_own(summands: Sequence[torch.Tensor], *, ordered: bool) -> torch.Tensor:
    """The sum of one rank's summands, contiguous; ``ordered``: in fixed point."""
    if not ordered:
        return torch.stack(list(summands)).sum(0) if len(summands) > 1 else summands[0].contiguous()
    fixed = torch.zeros(summands[0].shape, dtype=torch.int64, device=summands[0].device)
    for summand in summands:
        fixed += to_fixed(summand)
    return fixed


class SubdomainSum:
    """How the summands of all ranks become one sum on every rank; each call is one collective of n + 1 numbers.

    Integers add up to the same sum in any order, so ``ordered`` (in fixed point) gives the same bits however the
    subdomains lie on ranks, and whatever tree the MPI library adds along. ``fast`` adds in the summands' own dtype.

    Args:
        comm: ranks that together have each subdomain once; collective over them.
        kind: ``ordered`` or ``fast``.
        flag: is sent as the last number.
        staging: of the messages; default: through the host's memory.
    """

    def __init__(
        self, comm: Comm, kind: Literal["ordered", "fast"], flag: Flag | None = None, staging: Staging | None = None
    ) -> None:
        self._comm, self._ordered, self._flag = comm, kind == "ordered", flag or Flag()
        self._staging = staging or Staging()
        self._limit = 2.0 ** (62 - FRACTION_BITS) / comm.size

    def __call__(self, summands: Sequence[torch.Tensor]) -> torch.Tensor:
        """Tensors of one shape and dtype from this rank's subdomains -> the sum over all ranks' ones.

        A GPU is waited for once, before the message. Where a summand is NaN or beyond what fixed point can hold, so is
        an ``ordered`` sum: NaN, on all ranks.

        Raises:
            DivergedError: on all ranks, in that case; in a training behind the messages of the step, see :class:`Flag`.
        """
        first, staging = summands[0], self._staging
        mine = sum_own(summands, ordered=self._ordered).view(-1)
        message, total = staging.pair(mine.numel() + 1, mine.dtype, first.device)
        flag = torch.full((1,), self._flag.value, dtype=mine.dtype, device=first.device)
        if self._ordered:  # what can't be added is reported to all in the message, so that none waits
            wrong = ~(self._largest(summands) < self._limit / len(summands))  # not: NaN compares false
            mine.masked_fill_(wrong, 0)
            flag.masked_fill_(wrong, DIVERGED)
        message[:-1].copy_(mine, non_blocking=True)
        message[-1:].copy_(flag, non_blocking=True)
        staging.ready(first.device)
        self._comm.sum(staging.for_mpi(message), staging.for_mpi(total))
        self._flag.value = float(total[-1])
        result = total[:-1].to(first.device, non_blocking=True)
        if self._ordered:
            result = from_fixed(result, first.dtype)
            if self._flag.value >= DIVERGED:
                self._tell_divergence(summands, on_this_rank=bool(wrong))
                result.fill_(torch.nan)
        return result.view(first.shape)

    def _tell_divergence(self, summands: Sequence[torch.Tensor], *, on_this_rank: bool) -> None:
        largest = f"a summand of the DNN's first layer is {float(self._largest(summands))}"
        cause = largest if on_this_rank else "another rank has a summand that is not finite"
        advice = "try a smaller learning rate, or the one_cycle schedule (it starts low)"
        self._flag.diverge(f"phase {self._comm.phase_name}: {cause}; {advice}", heard=not on_this_rank)

    def _largest(self, summands: Sequence[torch.Tensor]) -> torch.Tensor:
        """The largest magnitude in them, NaN if one is; on their device."""
        if not summands[0].numel():
            return torch.zeros((), device=summands[0].device)
        return torch.stack([torch.linalg.vector_norm(summand, torch.inf) for summand in summands]).amax()


class SumOverSubdomains(Function):
    """:class:`SubdomainSum` as a differentiable function of this rank's summands; its backward is the identity."""

    @staticmethod
    def forward(ctx: Any, reduction: SubdomainSum, *summands: torch.Tensor) -> torch.Tensor:
        """The sum over all subdomains, on every rank."""
        ctx.summands = len(summands)
        return reduction([summand.detach() for summand in summands])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """The gradient with respect to the sum, which every rank has, for each summand; no message."""
        return (None, *gradients * ctx.summands)
