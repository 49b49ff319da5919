"""Ladders of ranks at work: what each rank costs the others of its host."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import torch

from ..core.environment import cpu_quota
from ..core.errors import UserError
from ..decomposition.rank_layout import RankLayout
from ..mpi import library
from ..mpi.communicator import Comm
from ..plan.machine import Host, Machine, Quartiles


def rungs(ranks: int) -> Iterator[int]:
    """1, 2, 4, 8, ... below ``ranks``, and ``ranks``."""
    size = 1
    while size < ranks:
        yield size
        size *= 2
    yield ranks


def refuse_idle_ranks(comm: Comm, layout: RankLayout) -> None:
    """Collective.

    Raises:
        UserError: on all ranks, if one would be idle.
    """
    idle = any(not placement.subdomains for placement in layout.placements)
    message = f"bench can't use idle ranks; start {layout.num_subdomains} ranks or fewer, or a multiple of that"
    comm.refuse(UserError(message) if idle else None)


def cores_of_host(comm: Comm) -> int:
    """Collective: the least number of cores that all ranks of one host may use."""
    masks = comm.allgather_object(os.sched_getaffinity(0))
    cores = max(1, int(min(len(set().union(*(masks[rank] for rank in comm.node_ranks()))), cpu_quota())))
    return -comm.maximum(-cores)


def ranks_by_host(layout: RankLayout, size: int) -> dict[str, int]:
    """How many of the first ``size`` ranks each host has."""
    return Counter(placement.host for placement in layout.placements[:size])


def this_machine(cores: int) -> Machine:
    """The machine of this job, without results."""
    return Machine(host=Host.here(cores), mpi_library=library.mpi_library(), torch=torch.__version__)


def spread(values: Quartiles, unit: float, digits: int = 1) -> str:
    """Median and quartiles in words; ``unit`` in seconds."""
    low, middle, high = (f"{value / unit:,.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"
