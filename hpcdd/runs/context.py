"""What a job knows of its run before it takes the run directory: who does what, with which data."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ..artifacts import summary
from ..config.schema import Config
from ..core.devices import use_processor
from ..data import sample_storage
from ..data.problem import Problem, build_problem, check_rank, check_shards
from ..data.reading import BoxReader
from ..data.sample_loading import Where
from ..decomposition import rank_layout
from ..decomposition.rank_layout import RankLayout, RankPlacement
from ..mpi.communicator import Comm
from ..mpi.stop import Stop
from ..parallel.batch_shards import Flag
from ..parallel.team import Team, form_team
from ..phases.attribution import ATTRIBUTION_SPLIT, attribution_rows
from ..training.precision import agreed_bf16, check_precisions, resolved
from .progress import board
from .resume import Job

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class RunContext:
    """One rank's view of a job; nothing in it changes while the job runs.

    Attributes:
        comm: all ranks.
        job: the same on every rank.
        problem: what is to be solved.
        layout: who owns what.
        storage: where this rank keeps its samples.
        reader: of the dataset file.
        channel: for messages that nobody waits for.
        stop: the agreement of all ranks on requests to stop.
        team: the ranks that this one works with; None on an idle rank.
        bf16: whether ``precision: auto`` means bf16.
    """

    comm: Comm
    job: Job
    problem: Problem
    layout: RankLayout
    storage: Where
    reader: BoxReader
    channel: MPI.Comm
    stop: Stop
    team: Team | None
    bf16: bool

    @cached_property
    def config(self) -> Config:
        """Of the job, with the precision that is meant by ``auto``."""
        return resolved(self.job.config, self.bf16)

    @property
    def placement(self) -> RankPlacement:
        """Of this rank."""
        return self.layout.placements[self.comm.rank]

    @cached_property
    def attribution_rows(self) -> npt.NDArray[np.int64]:
        """Samples of the split :data:`ATTRIBUTION_SPLIT` that are attributed, ascending."""
        problem = self.problem
        return attribution_rows(
            self.config, problem.samples[ATTRIBUTION_SPLIT], len(problem.decomposition), problem.info.num_classes
        )

    @property
    def facts(self) -> dict[str, Any]:
        """For the record of the run, see :class:`hpcdd.runs.resume.Job`."""
        return {
            "dataset": self.problem.info.fingerprint,
            "blocks": self.problem.blocks,
            "device": self.placement.device.partition(":")[0],
            "replicas": self.layout.replicas,
            "workers": sum(1 for placement in self.layout.placements if placement.subdomains),
            "bf16": self.bf16,
        }


def prepare(comm: Comm, job: Job, above: Stop | None = None) -> RunContext:
    """Determines what all ranks need to know, and checks it; prints the plan on root. Collective.

    Args:
        comm: all ranks.
        job: the same on every rank.
        above: of the whole job, where ``comm`` is a group of it.

    Raises:
        UserError: on all ranks, if anything does not fit; nothing has been written then.
    """
    if job.config.run.tensorboard:
        comm.on_root(board.check)
    problem = comm.on_root(lambda: build_problem(job.config))
    if job.record is not None:  # an earlier revision may have begun in another order
        problem = replace(problem, blocks=job.record["blocks"])
    layout = rank_layout.build(comm, len(problem.decomposition), job.config.device)
    placement = layout.placements[comm.rank]
    recorded = None if job.record is None else job.record.get("bf16")
    bf16 = agreed_bf16(comm, layout) if recorded is None else bool(recorded)
    config = resolved(job.config, bf16)
    use_processor(placement.threads, layout.neighbours(comm.rank))
    if job.study and placement.device != "cpu":  # what it had in memory at most counts anew for every run
        torch.cuda.reset_peak_memory_stats(placement.device)

    def check() -> None:
        check_precisions(config, placement.device)
        check_shards(config, problem, layout)
        check_rank(config, problem, placement)

    comm.on_all(check)
    storages = sample_storage.decide(comm, config, problem, layout)
    channel = comm.side_channel()
    stop = Stop(comm, channel, above)
    team = form_team(comm, layout, config, Flag(stop.wanted))
    if comm.is_root and not job.study:
        summary.print_plan(layout, problem, sys.stdout, storages)
    comm.startup.mark("problem")
    reader = BoxReader(problem.info.path)
    return RunContext(comm, job, problem, layout, storages.of(comm.rank), reader, channel, stop, team, bf16)
