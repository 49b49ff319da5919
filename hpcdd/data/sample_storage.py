"""Where each rank keeps its samples; all ranks agree on it before anything is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from ..config.schema import Config
from ..core import environment
from ..core.errors import UserError
from ..decomposition.rank_layout import RankLayout, RankPlacement
from ..mpi.communicator import Comm
from .problem import Problem
from .sample_loading import Where


@dataclass(frozen=True)
class Choice:
    """Where one rank keeps its samples, and why.

    Attributes:
        where: its samples are kept.
        needed: bytes of all its samples.
        host: budget in the host's memory, bytes.
        device: budget on its GPU, bytes; None without a GPU.
    """

    where: Where
    needed: int
    host: int
    device: int | None


@dataclass(frozen=True)
class Storages:
    """The choices of all ranks, known to each of them.

    Attributes:
        setting: ``data.storage``.
        choices: in rank order; None for an idle rank.
    """

    setting: str
    choices: tuple[Choice | None, ...]

    @property
    def stream(self) -> bool:
        """Whether any rank streams its samples."""
        return any(choice is not None and choice.where == "stream" for choice in self.choices)

    def of(self, rank: int) -> Where:
        """Where one rank keeps its samples."""
        choice = self.choices[rank]
        return "device" if choice is None else choice.where

    def lines(self) -> list[str]:
        """What was chosen, and why: a line for all ranks of one choice, with the numbers of that with least room."""
        lines = []
        for where in ("device", "memory", "stream"):
            ranks = [rank for rank, choice in enumerate(self.choices) if choice is not None and choice.where == where]
            if not ranks:
                continue
            same = [choice for choice in self.choices if choice is not None and choice.where == where]
            choice = max(same, key=lambda choice: choice.needed - choice.host)
            gpu = "" if choice.device is None else f" ({_mib(choice.device)} on its GPU)"
            why = f" of a budget of {_mib(choice.host)}{gpu}" if self.setting == "auto" else ", as set by data.storage"
            who = "all ranks" if len(ranks) == sum(c is not None for c in self.choices) else _listed(ranks)
            lines.append(f"samples of {who}: {_DESCRIPTIONS[where]}; they are {_mib(choice.needed)}{why}")
        return lines


_DESCRIPTIONS = {
    "device": "on the device",
    "memory": "in the host's memory",
    "stream": "streamed from the file",
}


def decide(comm: Comm, config: Config, problem: Problem, layout: RankLayout) -> Storages:
    """Collective: each rank chooses by its own memory, and all learn of all.

    Args:
        comm, config, problem, layout: of the job.

    Raises:
        UserError: on all ranks, if a rank that is to keep its samples in memory has too little of it.
    """
    placement = layout.placements[comm.rank]
    others = len(comm.colocated.masks)
    choice = comm.on_all(lambda: _choose(config, problem, layout, placement, others) if placement.subdomains else None)
    return Storages(config.data.storage, tuple(comm.allgather_object(choice)))


def bytes_needed(config: Config, problem: Problem, subdomains: Sequence[int]) -> int:
    """Bytes of all samples that a rank has in memory at one time, if it streams none."""
    others = set(range(len(problem.decomposition))) - set(subdomains)
    by_data = config.coherent.starts and config.coherent.parallelism == "data"
    later = [
        problem.bytes_of(others) if by_data else 0,  # the coherent phase reads them, and lets them go
        problem.bytes_of_whole() if config.baseline.enabled else 0,
    ]
    return problem.bytes_of(subdomains) + max(later)


def choose(setting: str, needed: int, host: int, device: int | None) -> Where:
    """Where one rank's samples are kept; pure.

    Args:
        setting: ``data.storage``.
        needed: bytes.
        host: budget in the host's memory, bytes.
        device: budget on the GPU, bytes; None on a CPU, where the device's memory is the host's.
    """
    if setting in ("memory", "device", "stream"):
        return cast(Where, setting)
    if device is not None and needed <= device:
        return "device"
    return "memory" if needed <= host else "stream"


def _choose(config: Config, problem: Problem, layout: RankLayout, placement: RankPlacement, others: int) -> Choice:
    """The choice of one rank, on whose host ``others`` ranks of other groups work as well."""
    here = [other for other in layout.placements if other.host == placement.host and other.subdomains]
    budget = None if config.data.memory is None else config.data.memory << 20
    free = environment.available_memory()
    host = free // (2 * (len(here) + others)) if budget is None else budget
    device = None
    if placement.device != "cpu":
        sharing = sum(1 for other in here if other.device_id == placement.device_id)
        device = torch.cuda.mem_get_info(placement.device)[0] // (2 * sharing) if budget is None else budget
    needed = bytes_needed(config, problem, placement.subdomains)
    where = choose(config.data.storage, needed, host, device)
    on_host = where == "memory" or (where == "device" and device is None)
    if config.data.storage != "auto" and on_host and needed > free:
        raise UserError(
            f"data.storage is {config.data.storage!r}, but the samples take {_mib(needed)}, and {_mib(free)} are free "
            f"on {placement.host}; use auto or stream, or more ranks"
        )
    return Choice(where, needed, host, device)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _listed(ranks: Sequence[int]) -> str:
    return f"rank {', '.join(map(str, ranks))}"
