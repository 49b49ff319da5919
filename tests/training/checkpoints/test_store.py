"""Checkpoints on the disk: whole or not there, two and the best, and no damage that is not seen."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpcdd.config.sections import CheckpointSettings
from hpcdd.core.errors import DamagedError
from hpcdd.core.seeding import WHOLE
from hpcdd.mpi.traffic import Ledger
from hpcdd.training.checkpoints.manager import CheckpointManager, CheckpointStats
from hpcdd.training.checkpoints.snapshot import Position, Snapshot, by_number
from hpcdd.training.checkpoints.store import CheckpointStore

from ...waiting import LIMIT

KILLED = Path(__file__).parent / "killed.py"


def snapshot(epoch: int, steps: int = 0) -> Snapshot:
    tensors = {
        "network/cnns.10.0.weight": torch.arange(6.0).view(2, 3) + epoch,
        "network/cnns.2.0.num_batches_tracked": torch.tensor(epoch),
        "exp_avg/dnn.blocks.2": torch.full((2, 2), 0.1),
        "network/dnn.rest.0.weight": torch.ones(3, dtype=torch.float64),
        "stream/2": torch.arange(16, dtype=torch.uint8),
        "stream/-1": torch.zeros(0, dtype=torch.uint8),
    }
    return Snapshot(
        Position(epoch, steps), tensors, {"history": [{"loss": float("inf"), "epoch": 1}], "sums": [0.1, 3]}
    )


def manager(folder: Path, said: list[str]) -> CheckpointManager:
    return CheckpointManager(
        folder,
        "this run",
        CheckpointSettings(),
        CheckpointStats(said.append),
        phase="coherent_transfer",
        ledger=Ledger(0),
        comm=None,
        subdomain_of=by_number,
        writes=(WHOLE, 2, 10),
        reads=(WHOLE, 2, 10),
    )


def save(folder: Path, *epochs: int, said: list[str] | None = None) -> None:
    checkpoints = manager(folder, [] if said is None else said)
    for epoch in epochs:
        checkpoints.save(lambda epoch=epoch: snapshot(epoch), steps=epoch)


def same(one: Snapshot | None, other: Snapshot) -> bool:
    return (
        one is not None
        and (one.position, one.facts) == (other.position, other.facts)
        and one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(t, other.tensors[k]) and t.dtype == other.tensors[k].dtype for k, t in one.tensors.items())
    )


def test_a_snapshot_comes_back_from_its_pieces(tmp_path: Path) -> None:
    save(tmp_path, 3)
    assert same(manager(tmp_path, []).load(), snapshot(3))
    assert {path.name for path in tmp_path.iterdir()} == {
        "e00003-s0000000.0002.h5", "e00003-s0000000.0010.h5", "e00003-s0000000.whole.h5", "e00003-s0000000.json",
    }  # fmt: skip
    part = snapshot(3).part(2, by_number)
    assert set(Snapshot.join([part]).tensors) == {
        "network/cnns.2.0.num_batches_tracked", "exp_avg/dnn.blocks.2", "stream/2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "subdomain"),
    [
        ("cnns.12.features.0.weight", 12), ("dnn.blocks.3", 3), ("blocks.3", 3), ("7", 7), ("-1", WHOLE),
        ("bias", WHOLE), ("rest.0.weight", WHOLE), ("dnn.rest.2.bias", WHOLE),
    ],
)  # fmt: skip
def test_a_tensor_belongs_to_the_subdomain_in_its_name(name: str, subdomain: int) -> None:
    assert by_number(name) == subdomain


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["e00004-s0000000.json", "e00005-s0000000.json"]
    assert len(list(tmp_path.glob("*.h5"))) == 6


def test_a_step_within_an_epoch_lies_between_its_ends(tmp_path: Path) -> None:
    checkpoints = manager(tmp_path, [])
    for position in [(1, 0), (1, 12), (1, 13)]:
        checkpoints.save(lambda position=position: snapshot(*position), steps=0)
    loaded = manager(tmp_path, []).load()
    assert loaded is not None
    assert loaded.position == (1, 13)


def test_the_same_position_is_not_written_twice(tmp_path: Path) -> None:
    save(tmp_path, 1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    checkpoints = manager(tmp_path, [])
    checkpoints.load()
    checkpoints.save(lambda: snapshot(1), steps=0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_what_was_not_finished_is_not_looked_at(tmp_path: Path) -> None:
    save(tmp_path, 1)
    CheckpointStore(tmp_path, "this run").write(Position(2, 0), 2, snapshot(2).part(2, by_number))
    (tmp_path / ".e00002-s0000000.json.123.tmp").write_text("{")
    said: list[str] = []
    assert same(manager(tmp_path, said).load(), snapshot(1))
    assert said == []


@pytest.mark.parametrize("name", ["e00002-s0000000.json", "e00002-s0000000.0002.h5", "e00002-s0000000.whole.h5"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_the_one_before_takes_the_place_of_a_damaged_one_and_that_is_told(
    tmp_path: Path, name: str, damage: str
) -> None:
    save(tmp_path, 1, 2)
    path = tmp_path / name
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 4
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"flip": bytes(whole), "cut": bytes(whole[:-1]), "empty": b""}[damage])
    said: list[str] = []
    assert same(manager(tmp_path, said).load(), snapshot(1))
    if (name, damage) == ("e00002-s0000000.json", "gone"):
        assert said == []  # it was never finished
    else:
        (text,) = said
        assert name in text
        assert "phase coherent_transfer resumes from epoch 1" in text


def test_a_training_of_which_nothing_is_whole_begins_anew_and_says_so(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for path in tmp_path.glob("*.0010.h5"):
        path.write_bytes(b"")
    said: list[str] = []
    assert manager(tmp_path, said).load() is None
    assert "is trained from the beginning" in said[0]


def test_what_is_written_behind_damaged_ones_is_kept(tmp_path: Path) -> None:
    """Positions beyond it are known to be damaged, and don't count as the last two."""
    save(tmp_path, 5, 6)
    for path in tmp_path.glob("*.0010.h5"):
        path.write_bytes(b"")
    said: list[str] = []
    checkpoints = manager(tmp_path, said)
    assert checkpoints.load() is None
    for epoch in (1, 2, 3):
        checkpoints.save(lambda epoch=epoch: snapshot(epoch), steps=epoch)
    assert same(manager(tmp_path, said).load(), snapshot(3))
    (tmp_path / "e00003-s0000000.0002.h5").unlink()
    assert same(manager(tmp_path, said).load(), snapshot(2))
    checkpoints = manager(tmp_path, said)
    checkpoints.load()
    for epoch in (4, 5, 6, 7):
        checkpoints.save(lambda epoch=epoch: snapshot(epoch), steps=epoch)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["e00006-s0000000.json", "e00007-s0000000.json"]


def test_a_piece_of_another_size_is_not_read(tmp_path: Path) -> None:
    """A terabyte that takes no room on the disk."""
    store = CheckpointStore(tmp_path, "run")
    store.publish(Position(1, 0), store.write(Position(1, 0), 0, b"piece"), {}, None)
    (part,) = tmp_path.glob("*.h5")
    with part.open("rb+") as file:
        file.truncate(1 << 40)
    with pytest.raises(DamagedError, match="has 1,099,511,627,776 bytes instead of 5"):
        store.read(store.manifest(Position(1, 0)), [0])


def test_checkpoints_of_another_run_are_not_taken(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(DamagedError, match="belongs to another run"):
        CheckpointStore(tmp_path, "that run").manifest(Position(1, 0))


def test_no_flipped_bit_stays_unseen(tmp_path: Path) -> None:
    """Every byte of a manifest and of a part: either the same content, or seen to be damaged."""
    save(tmp_path, 1)
    store, position = CheckpointStore(tmp_path, "this run"), Position(1, 0)
    manifest = store.manifest(position)
    part = store.read(manifest, [2])
    seen = 0
    for name in ("e00001-s0000000.json", "e00001-s0000000.0002.h5"):
        path = tmp_path / name
        whole = path.read_bytes()
        for offset in range(0, len(whole), 1 if name.endswith("json") else 7):
            damaged = bytearray(whole)
            damaged[offset] ^= 1 << (offset % 8)
            path.write_bytes(damaged)
            try:
                assert store.manifest(position) == manifest
                assert store.read(manifest, [2]) == part
            except DamagedError:
                seen += 1
        for length in range(0, len(whole), 97):
            path.write_bytes(whole[:length])
            with pytest.raises(DamagedError):
                store.read(store.manifest(position), [2])
        path.write_bytes(whole)
    assert seen > 1000


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EDQUOT])
def test_a_write_that_fails_is_told_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    save(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    said: list[str] = []

    def fails(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        if call == "replace":
            patched.setattr(Path, "replace", fails)
        else:
            patched.setattr(os, call, fails)
        save(tmp_path, 2, said=said)
    assert said == [f"a checkpoint in {tmp_path} can't be written: [Errno {code}] {os.strerror(code)}"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    save(tmp_path, 2, said=said)
    assert same(manager(tmp_path, []).load(), snapshot(2))


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1000]))
        save(tmp_path, 1)
    assert same(manager(tmp_path, []).load(), snapshot(1))


@pytest.mark.slow
def test_a_kill_at_any_system_call_of_a_save_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, KILLED, tmp_path], capture_output=True, text=True, timeout=LIMIT, check=True)
    report = json.loads(done.stdout)
    deaths = report["outcomes"]["2"] + report["outcomes"]["3"]
    assert report == {
        "outcomes": {"2": report["outcomes"]["2"], "3": report["outcomes"]["3"], "next": deaths},
        "said": [],
    }
    assert report["outcomes"]["2"] > 30
    assert report["outcomes"]["3"] > 10
