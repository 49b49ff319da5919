"""The ranks that work together with this one in the phases with messages."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.schema import Config
from ..decomposition.rank_layout import RankLayout, RankPlacement
from ..mpi.communicator import Comm
from ..mpi.runtime import takes_gpu_memory
from .batch_shards import BatchSharing, Flag
from .host_staging import Staging, check_gpu_aware
from .subdomain_sum import SubdomainSum


@dataclass(frozen=True)
class Team:
    """Communicators of a rank that owns subdomains.

    Attributes:
        config: the run's configuration.
        layout: who owns what.
        placement: of this rank.
        workers: all ranks that own subdomains; their root is the job's.
        across: those with the same replica number, which together have each subdomain once.
        replicas: those that train copies of the same CNNs.
        flag: this rank's wish to stop.
    """

    config: Config
    layout: RankLayout
    placement: RankPlacement
    workers: Comm
    across: Comm
    replicas: Comm
    flag: Flag

    def reduction(self) -> SubdomainSum:
        """The sum over all subdomains."""
        return SubdomainSum(self.across, self.config.reduction, self.flag, Staging(direct=self.config.comm.gpu_aware))

    def sharing(self, comm: Comm) -> BatchSharing:
        """Batches that these ranks share: all workers, or the replicas of a subdomain."""
        return BatchSharing(comm, self.flag, self.config.shared_batches == "exact", direct=self.config.comm.gpu_aware)


def form_team(comm: Comm, layout: RankLayout, config: Config, flag: Flag) -> Team | None:
    """Collective over all ranks: the team of this rank; None on an idle one.

    Raises:
        UserError: on all ranks, if ``comm.gpu_aware`` can't work on one.
    """
    placement = layout.placements[comm.rank]
    works = bool(placement.subdomains)
    if config.comm.gpu_aware:
        comm.on_all(lambda: check_gpu_aware(placement.device, takes_gpu_memory) if works else None)
    workers = comm.split(0 if works else None)
    across = comm.split(placement.replica if works else None)
    replicas = comm.split(placement.subdomains[0] if works else None)
    if workers is None or across is None or replicas is None:
        return None
    return Team(config, layout, placement, workers, across, replicas, flag)
