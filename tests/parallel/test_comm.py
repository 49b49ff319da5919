"""Collectives on 1 to 5 ranks; the sizes that make trouble are zero, uneven and prime."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hpcdd import comm as communication
from hpcdd.comm import Comm
from hpcdd.errors import UserError


@pytest.fixture
def comm() -> Comm:
    return communication.world()


@pytest.mark.parallel([1, 3, 4])
def test_collectives(comm: Comm) -> None:
    """One job for many small checks: starting the ranks costs more than the checks."""
    _gather_of_uneven_parts(comm)
    _gather_of_objects(comm)
    _to_root_in_pieces(comm)
    _agreement(comm)
    _counting(comm)
    _maximum_and_sleep(comm)
    _node(comm)


def _gather_of_uneven_parts(comm: Comm) -> None:
    counts = [7 * (rank % 3) for rank in range(comm.size)]  # rank 0 and every third one have nothing
    part = np.full(counts[comm.rank], comm.rank, np.float32)
    whole = comm.gather(part, counts)
    if comm.is_root:
        assert whole is not None
        assert whole.tolist() == [rank for rank, n in enumerate(counts) for _ in range(n)]
    else:
        assert whole is None


def _gather_of_objects(comm: Comm) -> None:
    gathered = comm.gather_object({"rank": comm.rank, "text": "x" * comm.rank})
    expected = [{"rank": rank, "text": "x" * rank} for rank in range(comm.size)]
    assert gathered == (expected if comm.is_root else None)
    assert comm.allgather_object(comm.rank) == list(range(comm.size))
    assert comm.broadcast_object([comm.rank], root=comm.size - 1) == [comm.size - 1]


def _to_root_in_pieces(comm: Comm) -> None:
    source = comm.size - 1
    array = np.arange(10_007, dtype=np.int64) if comm.rank == source else np.zeros(10_007, np.int64)
    before, communication._LARGEST_MESSAGE = communication._LARGEST_MESSAGE, 4096  # many pieces, the last one odd
    try:
        comm.to_root(array, source)
    finally:
        communication._LARGEST_MESSAGE = before
    if comm.is_root:
        assert np.array_equal(array, np.arange(10_007))


def _agreement(comm: Comm) -> None:
    assert comm.on_root(lambda: comm.rank) == 0
    assert comm.on_all(lambda: comm.rank) == comm.rank

    def wrong() -> None:
        raise UserError(f"found by rank {comm.rank}")

    with pytest.raises(UserError, match="found by rank 0"):
        comm.on_root(wrong)

    def wrong_on_the_last() -> None:
        if comm.rank == comm.size - 1:
            wrong()

    with pytest.raises(UserError, match=rf"found by rank {comm.size - 1} \(rank {comm.size - 1}\)"):
        comm.on_all(wrong_on_the_last)

    def wrong_alike() -> None:
        raise UserError("no GPU")

    ranks = ", ".join(map(str, range(comm.size)))
    with pytest.raises(UserError, match=rf"^no GPU \(rank {ranks}\)$"):
        comm.on_all(wrong_alike)
    with pytest.raises(UserError, match=rf"^no GPU \(rank {ranks}\)$"):
        comm.on_all(lambda: comm.on_all(wrong_alike))


def _counting(comm: Comm) -> None:
    with comm.phase("counted"):
        comm.gather(np.zeros(5, np.float64), [5] * comm.size)
    received = 5 * 8 * (comm.size - 1) if comm.is_root else 5 * 8
    assert (comm.traffic["counted"].calls, comm.traffic["counted"].bytes) == (1, received)
    with comm.phase("silent"):
        pass
    assert comm.traffic["silent"].calls == 0


def _maximum_and_sleep(comm: Comm) -> None:
    """While it waits for a rank that works long, a rank uses next to no processor time, and polls."""
    comm.maximum(0)
    polls = 0

    def poll() -> None:
        nonlocal polls
        polls += 1

    if comm.is_root:
        time.sleep(1.0)
    cpu = time.process_time()
    assert comm.maximum(comm.rank, poll) == comm.size - 1
    if not comm.is_root:
        assert time.process_time() - cpu < 0.3
        assert polls > 10


def _node(comm: Comm) -> None:
    assert comm.node_ranks() == list(range(comm.size))


@pytest.mark.parallel(2)
def test_debug_prints_every_call(
    comm: Comm, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCDD_DEBUG_COMM", "1")
    talkative = Comm(comm.mpi)
    capfd.readouterr()
    talkative.gather(np.zeros(3, np.float32), [3, 3])
    assert f"comm: rank {comm.rank}: Gatherv 12 bytes" in capfd.readouterr().err
