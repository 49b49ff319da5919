"""What the ranks that train together must have identical at the end of every epoch: their copies and their decisions.

On processors that compute identically copies have the same bits, and whatever differs is a defect. On others (another
generation, another number of threads) each copy is rounded in its own way: then all copy the first one's, so that
rounding does not add up, and a difference beyond :data:`TOLERANCE` is a defect. Losses and accuracies are those of the
first rank, so that all stop early after the same epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..models.serialization import pack, unpack
from ..mpi.communicator import Comm
from ..parallel.sharded_coherent import checksum
from .status import Ending, Hooks

Copies = Mapping[str, Sequence[torch.Tensor]]
TOLERANCE = 1e-2
"""Largest difference of two copies after an epoch on unlike processors, relative to their norm.

One unit in the last place at each of an epoch's steps, always in the same direction, came to 8e-6 (coherent phase of
the quick-start, two ranks); it grows with the number of steps.
"""


class DriftError(RuntimeError):
    """Copies of the same parameters that differ between ranks: a defect of hpcdd or of the machine."""


@dataclass(frozen=True)
class _RankReport:
    """Of one rank: its decision, its processor, and by name the checksums and bytes of its copies."""

    ending: Ending
    arithmetic: str
    copies: dict[str, tuple[int, int]]


def checked(hooks: Hooks, comm: Comm, copies: Copies, arithmetic: str = "") -> Hooks:
    """Hooks by which the ranks agree on the end of every epoch, and compare their copies; one message.

    Args:
        hooks: are called as before.
        comm: ranks that train together.
        copies: by name what is to be identical wherever a rank of ``comm`` has something of that name.
        arithmetic: what the bits that this rank computes depend on, see
            :class:`hpcdd.decomposition.rank_layout.RankPlacement`.
    """

    def agree(ending: Ending) -> Ending:
        sizes = {name: sum(t.numel() * t.element_size() for t in tensors) for name, tensors in copies.items()}
        mine = _RankReport(ending, arithmetic, {name: (checksum(copies[name]), size) for name, size in sizes.items()})
        everyone = comm.allgather_object(mine)
        if diverged := [report.ending for report in everyone if not report.ending.finite]:
            return next((one for one in diverged if one.diverged is not None), diverged[0])
        _compare(comm, copies, everyone, f"{ending.phase}, epoch {ending.epoch}")
        return everyone[0].ending

    return replace(hooks, agree=agree)


def _compare(comm: Comm, copies: Copies, everyone: Sequence[_RankReport], when: str) -> None:
    """Collective; a message only where copies differ.

    Raises:
        DriftError: on all ranks, naming what differs and where.
    """
    for name in sorted({name for report in everyone for name in report.copies}):
        holders = {rank: report for rank, report in enumerate(everyone) if name in report.copies}
        if len({report.copies[name] for report in holders.values()}) == 1:
            continue
        if len({report.arithmetic for report in holders.values()}) == 1:
            listed = ", ".join(f"rank {rank} {report.copies[name][0]:08x}" for rank, report in holders.items())
            raise DriftError(f"{when}: copies of {name} differ between ranks (checksums: {listed})")
        source = min(holders)
        differences = comm.allgather_object(_take(comm, copies.get(name), source, holders[source].copies[name][1]))
        if not max(differences) <= TOLERANCE:
            listed = ", ".join(f"rank {rank} {differences[rank]:.2g}" for rank in holders)
            raise DriftError(
                f"{when}: copies of {name} differ between ranks by more than different processors explain (relative to "
                f"rank {source}: {listed}; expected {TOLERANCE} at most)"
            )


def _take(comm: Comm, tensors: Sequence[torch.Tensor] | None, source: int, size: int) -> float:
    """Collective: copies that of the rank ``source``; by how much this rank's differed, relative to it."""
    ours = {} if tensors is None else {str(number): tensor.detach() for number, tensor in enumerate(tensors)}
    buffer = pack(ours) if ours else np.empty(size, np.uint8)
    comm.broadcast(buffer, source)
    if not ours:
        return 0.0
    theirs = unpack(buffer, ours)
    squares, norm = 0.0, 0.0
    for number, tensor in ours.items():
        given = theirs[number].to(tensor.device)
        squares += float((tensor.double() - given.double()).square().sum())
        norm += float(given.double().square().sum())
        tensor.copy_(given)
    return float((squares / max(norm, 1e-300)) ** 0.5)
