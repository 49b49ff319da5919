"""The checkpoints of a run's trainings: in which folder they are, and which rank writes and reads what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..config.sections import CheckpointSettings
from ..core.names import TrainingName
from ..core.seeding import WHOLE
from ..mpi.communicator import Comm
from ..mpi.traffic import Ledger
from ..parallel.team import Team
from ..training.checkpoints.manager import CheckpointManager, CheckpointStats
from ..training.checkpoints.snapshot import by_number
from .run_directory import RunDirectory


class RunCheckpoints:
    """Makes the manager of each training's checkpoints, on one rank.

    Args:
        directory: of the run.
        run: its identity.
        settings: how often.
        ledger: of this rank's messages.
        warn: takes what the user should know.

    Attributes:
        stats: what the checkpoints of this rank have cost, and the trainings in earlier jobs.
    """

    def __init__(
        self,
        directory: RunDirectory,
        run: str,
        settings: CheckpointSettings,
        ledger: Ledger,
        warn: Callable[[str], None],
    ) -> None:
        self._directory, self.stats = directory, CheckpointStats(warn)
        self._manager = partial(CheckpointManager, run=run, settings=settings, stats=self.stats, ledger=ledger)

    def of_local(self, team: Team, subdomain: int) -> CheckpointManager:
        """Those of one local CNN: no message, but between replicas."""
        return self._manager(
            self._directory.training("local", subdomain),
            phase="local",
            comm=team.replicas,
            subdomain_of=lambda _: subdomain,
            writes=() if team.placement.replica else (subdomain,),
            reads=(subdomain,),
        )

    def of_dnn(self) -> CheckpointManager:
        """Those of the DNN that root trains."""
        return self._manager(self._directory.training("dnn"), phase="dnn", comm=None)

    def of_parts(self, phase: TrainingName, team: Team, comm: Comm) -> CheckpointManager:
        """Those of a network whose parts lie on the ranks of ``comm``; of several replicas the first writes."""
        subdomains = team.placement.subdomains
        return self._manager(
            self._directory.training(phase),
            phase=phase,
            comm=comm,
            subdomain_of=by_number,
            writes=() if team.placement.replica else (*([WHOLE] if comm.is_root else []), *subdomains),
            reads=(WHOLE, *subdomains),
        )

    def of_copies(self, phase: TrainingName, team: Team) -> CheckpointManager:
        """Those of a network of which all workers have copies."""
        writes = (WHOLE,) if team.workers.is_root else ()
        return self._manager(self._directory.training(phase), phase=phase, comm=team.workers, writes=writes)
