"""Copies that must be alike on several ranks are compared at the end of every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from ..comm import Comm
from ..parallel.coherent import checksum
from .status import Hooks, Status


class DriftError(RuntimeError):
    """Copies of the same parameters that differ between ranks: a defect of hpcdd or of the machine."""


def checked(hooks: Hooks, comm: Comm, copies: Mapping[str, Sequence[torch.Tensor]]) -> Hooks:
    """Hooks that, at the end of every epoch, compare this rank's copies with those of the other ranks as well.

    Args:
        hooks: are called as before.
        comm: ranks that train together.
        copies: by name what is to be alike wherever a rank of ``comm`` has something of that name.
    """

    def epoch(status: Status) -> None:
        with hooks.evaluation():
            check_alike(comm, copies, f"{status.phase}, epoch {status.epoch}")
        hooks.epoch(status)

    return replace(hooks, epoch=epoch)


def check_alike(comm: Comm, copies: Mapping[str, Sequence[torch.Tensor]], when: str) -> None:
    """Collective: compares checksums.

    Raises:
        DriftError: on all ranks, naming what differs and where.
    """
    everyone = comm.allgather_object({name: checksum(tensors) for name, tensors in copies.items()})
    for name in sorted({name for sums in everyone for name in sums}):
        values = {rank: sums[name] for rank, sums in enumerate(everyone) if name in sums}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"rank {rank} {value:08x}" for rank, value in values.items())
            raise DriftError(f"{when}: copies of {name} differ between ranks (checksums: {listed})")
