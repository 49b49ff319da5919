"""Which rank writes which file of a training's checkpoints, and which rank reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hpcdd.config.schema import Config
from hpcdd.config.sections import CheckpointSettings
from hpcdd.core.names import TrainingName
from hpcdd.decomposition.rank_layout import RankLayout, RankPlacement, assign
from hpcdd.mpi.traffic import Ledger
from hpcdd.parallel.batch_shards import Flag
from hpcdd.parallel.team import Team
from hpcdd.runs.run_checkpoints import RunCheckpoints
from hpcdd.runs.run_directory import RunDirectory
from hpcdd.training.checkpoints.manager import CheckpointManager
from hpcdd.training.checkpoints.snapshot import Position, Snapshot

from ..thread_ranks import ThreadComm, on_ranks
from ..waiting import LIMIT

RANKS, S = 5, 2
PLACEMENTS = tuple(
    RankPlacement(rank, "host", "cpu", "cpu", 1, tuple(subdomains), replica)
    for rank, (subdomains, replica) in enumerate(assign(S, RANKS))
)
"""Two replicas of each of two subdomains, and an idle rank."""
FIRST, SECOND = (0, 1), (2, 3)
"""The ranks of each subdomain."""


def teams() -> list[Team]:
    """Of the ranks that work."""
    layout = RankLayout(S, PLACEMENTS)

    def communicators(*groups: tuple[int, ...]) -> dict[int, ThreadComm]:
        made = {}
        for ranks in groups:
            shared = threading.Barrier(len(ranks), timeout=LIMIT), [None] * len(ranks)
            made |= {rank: ThreadComm(number, len(ranks), *shared) for number, rank in enumerate(ranks)}
        return made

    workers, replicas = communicators((0, 1, 2, 3)), communicators(FIRST, SECOND)
    across = communicators((0, 2), (1, 3))
    return [
        Team(Config(), layout, PLACEMENTS[rank], workers[rank], across[rank], replicas[rank], Flag())
        for rank in range(4)
    ]


def checkpoints_in(folder: Path) -> RunCheckpoints:
    return RunCheckpoints(RunDirectory(folder), "this run", CheckpointSettings(), Ledger(0), pytest.fail)


def saved_and_loaded(
    folder: Path, manager_of: Callable[[RunCheckpoints, Team], CheckpointManager], names: Callable[[Team], list[str]]
) -> list[dict[str, int]]:
    """On the ranks that work: a snapshot whose tensors hold the number of their rank is saved.

    Returns:
        By rank and name of the tensors that this rank then reads: the rank that has written them.
    """
    of_ranks = teams()

    def work(comm: ThreadComm) -> dict[str, int]:
        team = of_ranks[comm.rank]
        tensors = {f"network/{name}": torch.tensor([comm.rank]) for name in names(team)}
        manager_of(checkpoints_in(folder), team).save(lambda: Snapshot(Position(1, 0), tensors, {"history": []}), 1)
        comm.maximum(0)  # all have saved
        snapshot = manager_of(checkpoints_in(folder), team).load()
        assert snapshot is not None
        return {name.partition("/")[2]: int(tensor) for name, tensor in snapshot.tensors.items()}

    return on_ranks(4, work)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "checkpoints")) for path in folder.rglob("*.*"))


def test_a_local_cnn_is_written_by_its_first_replica_and_read_by_all(tmp_path: Path) -> None:
    read = saved_and_loaded(
        tmp_path,
        lambda checkpoints, team: checkpoints.of_local(team, team.placement.subdomains[0]),
        lambda team: ["weight", "0.bias"],  # whatever a user's CNN calls its parameters
    )
    assert read == [{"weight": min(ranks), "0.bias": min(ranks)} for ranks in (FIRST, FIRST, SECOND, SECOND)]
    assert files(tmp_path) == [
        "local/0000/e00001-s0000000.0000.h5",
        "local/0000/e00001-s0000000.json",
        "local/0001/e00001-s0000000.0001.h5",
        "local/0001/e00001-s0000000.json",
    ]


def test_a_rank_without_replicas_saves_its_local_cnn_by_itself(tmp_path: Path) -> None:
    """Between replicas a checkpoint is a message, for which each waits at the same step."""
    shared = teams()[0]
    single = replace(shared, replicas=ThreadComm(0, 1, None, []))  # type: ignore[arg-type]
    assert [checkpoints_in(tmp_path).of_local(team, 0).alone for team in (shared, single)] == [False, True]


@pytest.mark.parametrize(
    ("phase", "ranks", "names"),
    [
        ("coherent_transfer", "workers", ("cnns.{}.weight", "dnn.rest.bias")),
        # Its other replicas train the same on ranks of their own, and don't touch the files.
        ("dnn", "across", ("blocks.{}", "rest.0.weight")),
    ],
)
def test_of_a_sharded_network_each_rank_of_the_first_replica_writes_its_part(
    tmp_path: Path, phase: TrainingName, ranks: str, names: tuple[str, str]
) -> None:
    """The coherent model; and the distributed DNN, which only the ranks across have."""
    part, whole = names
    read = saved_and_loaded(
        tmp_path,
        lambda checkpoints, team: checkpoints.of_parts(phase, team, getattr(team, ranks)),
        lambda team: [part.format(team.placement.subdomains[0]), whole],
    )
    first, second = ({part.format(s): 2 * s, whole: 0} for s in range(2))
    assert read == [first, first, second, second]
    assert files(tmp_path) == [
        f"{phase}/e00001-s0000000.0000.h5",
        f"{phase}/e00001-s0000000.0001.h5",
        f"{phase}/e00001-s0000000.json",
        f"{phase}/e00001-s0000000.whole.h5",
    ]


def test_of_copies_one_is_written_and_all_read_it(tmp_path: Path) -> None:
    read = saved_and_loaded(
        tmp_path,
        lambda checkpoints, team: checkpoints.of_copies("global", team),
        lambda team: ["features.0.weight", "3.bias"],
    )
    assert read == [{"features.0.weight": 0, "3.bias": 0}] * 4
    assert files(tmp_path) == ["global/e00001-s0000000.json", "global/e00001-s0000000.whole.h5"]


def test_root_keeps_the_dnn_without_messages(tmp_path: Path) -> None:
    manager = checkpoints_in(tmp_path).of_dnn()
    manager.save(lambda: Snapshot(Position(2, 3), {"network/first.weight": torch.ones(1)}, {}), 1)
    assert (manager.alone, manager.leads) == (True, True)
    assert files(tmp_path) == ["dnn/e00002-s0000003.json", "dnn/e00002-s0000003.whole.h5"]
