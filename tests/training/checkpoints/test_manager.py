"""Checkpoints of a training as several ranks see them: when one is due, what all take, and what it has cost."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcdd.config.sections import CheckpointSettings
from hpcdd.core.seeding import WHOLE
from hpcdd.mpi.communicator import Comm
from hpcdd.mpi.traffic import Ledger
from hpcdd.training.checkpoints.manager import (
    CheckpointManager,
    CheckpointStats,
    NullCheckpointManager,
    TrainingCosts,
)
from hpcdd.training.checkpoints.snapshot import Position, Snapshot, by_number

from ...thread_ranks import ThreadComm, on_ranks
from ...waiting import Clock

PHASE = "coherent_transfer"


def manager(
    folder: Path, stats: CheckpointStats, comm: Comm | None = None, every: str = "5 minutes", **more: Any
) -> CheckpointManager:
    """Each rank of ``comm`` has the subdomain of its own number; root has what belongs to all, too."""
    ledger = Ledger(0) if comm is None else comm.ledger
    if comm is not None:
        mine = (comm.rank,)
        more = {"subdomain_of": by_number, "writes": (WHOLE, *mine) if comm.is_root else mine, "reads": (WHOLE, *mine)}
    settings = CheckpointSettings(every=every)
    return CheckpointManager(folder, "this run", settings, stats, phase=PHASE, ledger=ledger, comm=comm, **more)


def snapshot(epoch: int, rank: int = 0) -> Snapshot:
    tensors = {f"network/cnns.{rank}.weight": torch.tensor([epoch]), "network/rest.bias": torch.tensor([epoch])}
    return Snapshot(Position(epoch, 0), tensors, {"history": [epoch]})


def save(checkpoints: CheckpointManager, epoch: int, rank: int = 0, steps: int = 0) -> None:
    checkpoints.save(lambda: snapshot(epoch, rank), steps)


def on_two(folder: Path, epochs: tuple[int, ...], then: Callable[[int], None] = lambda _: None) -> list[Any]:
    """Two ranks save at the end of these epochs, then each calls ``then`` with its number, and then both load.

    Returns:
        Of each rank the epoch that it has loaded, None for nothing, and its warnings.
    """

    def work(comm: ThreadComm) -> tuple[int | None, list[str]]:
        warnings: list[str] = []
        checkpoints = manager(folder, CheckpointStats(warnings.append), comm)
        for epoch in epochs:
            save(checkpoints, epoch, comm.rank)
        comm.maximum(0)
        then(comm.rank)
        comm.maximum(0)
        loaded = manager(folder, CheckpointStats(warnings.append), comm).load()
        if loaded is None:
            return None, warnings
        epoch = loaded.position.epoch
        expected = {f"network/cnns.{comm.rank}.weight": [epoch], "network/rest.bias": [epoch]}
        assert {name: tensor.tolist() for name, tensor in loaded.tensors.items()} == expected
        assert loaded.facts == {"history": [epoch]}
        return epoch, warnings

    return on_ranks(2, work)


# -- what all ranks take -----------------------------------------------------------------------------------------------


def test_each_rank_reads_its_part_and_what_belongs_to_all(tmp_path: Path) -> None:
    assert on_two(tmp_path, (1, 2)) == [(2, []), (2, [])]


@pytest.mark.parametrize("part", ["0000", "0001", "whole"])
def test_a_part_that_one_rank_finds_damaged_is_taken_by_none(tmp_path: Path, part: str) -> None:
    """Else the ranks would continue from different steps. One of them says so."""

    def damage(rank: int) -> None:
        if rank == 0:
            path = tmp_path / f"e00002-s0000000.{part}.h5"
            path.write_bytes(path.read_bytes()[:-1])

    (epoch, warnings), other = on_two(tmp_path, (1, 2), damage)
    assert (epoch, other) == (1, (1, []))
    (text,) = warnings
    assert f"e00002-s0000000.{part}.h5" in text
    assert text.count("e00002") == 1, "said once, though two ranks may have seen it"
    assert text.endswith(f": phase {PHASE} resumes from epoch 1 and 0 steps")


def test_where_nothing_is_whole_all_begin_anew(tmp_path: Path) -> None:
    def damage(rank: int) -> None:
        if rank == 1:
            for path in tmp_path.glob("*.0001.h5"):
                path.write_bytes(b"")

    (epoch, warnings), other = on_two(tmp_path, (1, 2), damage)
    assert (epoch, other) == (None, (None, []))
    (text,) = warnings
    assert text.endswith(f": phase {PHASE} is trained from the beginning")


def test_what_a_rank_does_not_see_yet_is_taken_by_none(tmp_path: Path) -> None:
    """A shared file system shows a new file on some hosts before others."""
    here, there = tmp_path / "root", tmp_path / "other"

    def work(comm: ThreadComm) -> Position | None:
        checkpoints = manager(here, CheckpointStats([].append), comm)
        for epoch in (1, 2):
            save(checkpoints, epoch, comm.rank)
        comm.maximum(0)
        if comm.is_root:
            shutil.copytree(here, there)
            (there / "e00002-s0000000.json").unlink()
        comm.maximum(0)
        loaded = manager(here if comm.is_root else there, CheckpointStats([].append), comm).load()
        return None if loaded is None else loaded.position

    assert on_ranks(2, work) == [(1, 0), (1, 0)]


def test_a_rank_that_can_not_write_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """The training continues, and its leader warns."""

    def work(comm: ThreadComm) -> list[str]:
        warnings: list[str] = []
        checkpoints = manager(tmp_path, CheckpointStats(warnings.append), comm)
        save(checkpoints, 1, comm.rank)
        comm.maximum(0)
        if comm.is_root:
            (tmp_path / "e00002-s0000000.0001.h5").mkdir()  # root can write into any folder, but not over one
        comm.maximum(0)
        save(checkpoints, 2, comm.rank)
        comm.maximum(0)
        if comm.is_root:
            (tmp_path / "e00002-s0000000.0001.h5").rmdir()
        return warnings

    (text,), others = on_ranks(2, work)
    assert text.startswith(f"a checkpoint in {tmp_path} can't be written: ")
    assert others == []
    assert [path.name for path in tmp_path.glob("*.json")] == ["e00001-s0000000.json"]
    assert on_two(tmp_path, ()) == [(1, []), (1, [])]


# -- when one is due ---------------------------------------------------------------------------------------------------


def test_minutes_pass_since_the_last_checkpoint_by_the_clock_of_the_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    checkpoints = manager(tmp_path, CheckpointStats(pytest.fail), every="2 minutes")
    follower = manager(tmp_path, CheckpointStats(pytest.fail), every="2 minutes", writes=())
    clock.wait(119)
    assert not checkpoints.overdue()
    clock.wait(1)
    assert checkpoints.overdue()
    assert not follower.overdue()
    assert not checkpoints.due(1)
    save(checkpoints, 1)
    assert not checkpoints.overdue()
    clock.wait(120)
    save(checkpoints, 1)
    assert not checkpoints.overdue(), "nothing has changed since the last one"


def test_epochs_are_counted_alike_on_all_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    for more in ({}, {"writes": ()}):
        checkpoints = manager(tmp_path, CheckpointStats(pytest.fail), every="3 epochs", **more)
        clock.wait(1e6)
        assert not checkpoints.overdue()
        assert [epochs for epochs in range(1, 8) if checkpoints.due(epochs)] == [3, 6]


def test_no_manager_no_checkpoint() -> None:
    none = NullCheckpointManager()
    none.count(0.5)
    none.save(lambda: pytest.fail("a snapshot takes time"), 1)
    assert (none.load(), none.overdue(), none.due(1), none.alone) == (None, False, False, False)


def test_a_rank_that_is_the_only_one_waits_for_nobody(tmp_path: Path) -> None:
    checkpoints = manager(tmp_path, CheckpointStats(pytest.fail), ThreadComm(0, 1, None, []))  # type: ignore[arg-type]
    assert checkpoints.alone
    save(checkpoints, 1)  # without a partner in its messages
    assert not manager(tmp_path, CheckpointStats(pytest.fail), ThreadComm(0, 2, None, [])).alone  # type: ignore[arg-type]


# -- what a training has cost ------------------------------------------------------------------------------------------


def costs(folder: Path) -> TrainingCosts:
    """Of the newest checkpoint."""
    return TrainingCosts(**json.loads(max(folder.glob("*.json")).read_text())["content"]["costs"])


def test_costs_add_up_over_the_jobs_of_a_run(tmp_path: Path, clock: Clock) -> None:
    first = manager(tmp_path, CheckpointStats(pytest.fail))
    clock.wait(10)
    save(first, 1, steps=5)
    stats = CheckpointStats(pytest.fail)
    second = manager(tmp_path, stats)
    second.load()
    assert stats.earlier[PHASE, WHOLE].seconds == 10
    assert stats.earlier[PHASE, WHOLE].steps == 5
    clock.wait(7)
    save(second, 2, steps=3)
    clock.wait(1)
    save(second, 3, steps=4)
    assert (costs(tmp_path).seconds, costs(tmp_path).steps) == (18, 9)


def test_a_follower_reports_no_earlier_costs(tmp_path: Path) -> None:
    """Or the sum over the ranks would count them several times."""
    save(manager(tmp_path, CheckpointStats(pytest.fail)), 1)
    stats = CheckpointStats(pytest.fail)
    assert manager(tmp_path, stats, writes=()).load() is not None
    assert stats.earlier == {}


def test_trainings_that_take_turns_share_the_time(tmp_path: Path, clock: Clock) -> None:
    checkpoints = manager(tmp_path, CheckpointStats(pytest.fail))
    clock.wait(10)
    checkpoints.count(0.25)
    clock.wait(8)
    checkpoints.count(0.0)
    clock.wait(100)
    save(checkpoints, 1)
    assert costs(tmp_path).seconds == 12


def test_messages_are_those_of_the_busiest_rank_and_cpu_seconds_those_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = Clock()
    monkeypatch.setattr(time, "process_time", processor)

    def work(comm: ThreadComm) -> None:
        with comm.phase(PHASE):
            checkpoints = manager(tmp_path, CheckpointStats(pytest.fail), comm)
            for _ in range(1 + comm.rank):
                with comm.counted("a message", 100):
                    pass
            with comm.phase("not counted"):
                comm.maximum(0)
                if comm.is_root:
                    processor.wait(5)  # of both ranks, which are one process
                comm.maximum(0)
            save(checkpoints, 1, comm.rank)
            assert comm.ledger.traffic["checkpoint"].calls > 0
            save(checkpoints, 2, comm.rank)

    on_ranks(2, work)
    found = costs(tmp_path)
    assert (found.calls, found.bytes) == (2, 200), "without those of the first checkpoint itself"
    assert found.core_seconds == 10


def test_the_time_for_checkpoints_is_known(tmp_path: Path, clock: Clock) -> None:
    stats = CheckpointStats(pytest.fail)
    checkpoints = manager(tmp_path, stats)
    clock.wait(3)

    def slow() -> Snapshot:
        clock.wait(2)
        return snapshot(1)

    checkpoints.save(slow, 1)
    assert stats.seconds == 2
