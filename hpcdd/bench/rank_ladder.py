"""Ladders of ranks at work: what each rank costs the others of its host."""

from __future__ import annotations

import os
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


def refuse_spare_ranks(comm: Comm, layout: RankLayout) -> None:
    """Collective.

    Raises:
        UserError: on all ranks, if one has nothing to do.
    """
    idle = any(not place.subdomains for place in layout.places)
    words = f"bench can't use idle ranks; start {layout.num_subdomains} ranks or fewer, or a multiple of that"
    comm.refuse(UserError(words) if idle else None)


def cores_of_host(comm: Comm) -> int:
    """Collective: the least number of cores that the ranks of one host may use together."""
    masks = comm.allgather_object(os.sched_getaffinity(0))
    own = max(1, int(min(len(set().union(*(masks[rank] for rank in comm.node_ranks()))), cpu_quota())))
    return -comm.maximum(-own)


def ranks_by_host(layout: RankLayout, size: int) -> dict[str, int]:
    """How many of the first ``size`` ranks each host has."""
    found: dict[str, int] = {}
    for place in layout.places[:size]:
        found[place.host] = found.get(place.host, 0) + 1
    return found


def this_machine(cores: int) -> Machine:
    """The machine of this job, without results."""
    return Machine(host=Host.here(cores), mpi_library=library.mpi_library(), torch=torch.__version__)


def spread(values: Quartiles, unit: float, digits: int = 1) -> str:
    """Median and quartiles in words; ``unit`` in seconds."""
    low, middle, high = (f"{value / unit:,.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"
