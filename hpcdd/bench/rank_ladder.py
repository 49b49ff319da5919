"""The ranks of a benchmark: their set-up, and ladders of ranks at work, for what each costs the others of its host."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from ..config.schema import Config
from ..core.devices import use_processor
from ..core.environment import cpu_quota
from ..core.errors import UserError
from ..data.problem import Problem, check_rank
from ..decomposition import rank_layout
from ..decomposition.rank_layout import RankLayout
from ..mpi import runtime
from ..mpi.communicator import Comm
from ..parallel.batch_shards import Flag
from ..parallel.team import Team, form_team
from ..plan.machine import Host, Machine
from ..training.precision import SECTIONS, resolved_on


def set_up(
    comm: Comm, config: Config, problem: Problem, sections: Sequence[str] = SECTIONS
) -> tuple[RankLayout, Config, Team | None]:
    """Collective: what a run does before it reads samples.

    Args:
        comm, config, problem: the same on every rank.
        sections: of the configuration, whose precisions are needed.

    Returns:
        The layout; the configuration with the precisions of the ranks' devices in the place of ``auto``; and this
        rank's team, None on an idle rank.

    Raises:
        UserError: on all ranks, if a device is missing or does not compute in a precision, or the user's own CNN fails.
    """
    layout = rank_layout.build(comm, len(problem.decomposition), config.device)
    placement = layout.placements[comm.rank]
    config = resolved_on(comm, layout, config, sections)
    comm.on_all(lambda: check_rank(config, problem, placement))
    use_processor(placement.threads, layout.neighbours(comm.rank))
    return layout, config, form_team(comm, layout, config, Flag())


def working_team(comm: Comm, config: Config, problem: Problem, sections: Sequence[str] = SECTIONS) -> Team:
    """:func:`set_up` where every rank is needed; the team has the layout and the configuration.

    Raises:
        UserError: on all ranks, also if one would be idle.
    """
    layout, _, team = set_up(comm, config, problem, sections)
    idle = any(not placement.subdomains for placement in layout.placements)
    message = f"bench can't use idle ranks; start {layout.num_subdomains} ranks or fewer, or a multiple of that"
    comm.refuse(UserError(message) if idle else None)
    assert team is not None
    return team


def rungs(ranks: int) -> Iterator[int]:
    """1, 2, 4, 8, ... below ``ranks``, and ``ranks``."""
    size = 1
    while size < ranks:
        yield size
        size *= 2
    yield ranks


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
    return Machine(host=Host.here(cores), mpi_library=runtime.mpi_library(), torch=torch.__version__)
