"""Collectives on 1 to 5 ranks; the sizes that make trouble are zero, uneven and prime."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy as np
import pytest

from hpcdd.core.errors import UserError
from hpcdd.mpi import communicator
from hpcdd.mpi.communicator import Comm
from hpcdd.mpi.runtime import library

pytestmark = pytest.mark.ranks(3, 1, 4)


def test_gather_of_uneven_parts(comm: Comm) -> None:
    counts = [7 * (rank % 3) for rank in range(comm.size)]  # rank 0 and every third one have nothing
    part = np.full(counts[comm.rank], comm.rank, np.float32)
    whole = comm.gather(part, counts)
    if comm.is_root:
        assert whole is not None
        assert whole.tolist() == [rank for rank, n in enumerate(counts) for _ in range(n)]
    else:
        assert whole is None


def test_gather_of_objects(comm: Comm) -> None:
    gathered = comm.gather_object({"rank": comm.rank, "text": "x" * comm.rank})
    expected = [{"rank": rank, "text": "x" * rank} for rank in range(comm.size)]
    assert gathered == (expected if comm.is_root else None)
    assert comm.allgather_object(comm.rank) == list(range(comm.size))
    assert comm.broadcast_object([comm.rank], root=comm.size - 1) == [comm.size - 1]


@contextlib.contextmanager
def largest_message(size: int) -> Iterator[None]:
    before, communicator._LARGEST_MESSAGE = communicator._LARGEST_MESSAGE, size
    try:
        yield
    finally:
        communicator._LARGEST_MESSAGE = before


def test_to_root_in_chunks(comm: Comm) -> None:
    source = comm.size - 1
    array = np.arange(10_007, dtype=np.int64) if comm.rank == source else np.zeros(10_007, np.int64)
    with largest_message(4096):  # many chunks, the last one odd
        comm.to_root(array, source)
    if comm.is_root:
        assert np.array_equal(array, np.arange(10_007))


def test_gather_and_scatter_in_chunks(comm: Comm) -> None:
    """No call has more bytes than that, however many one rank or all ranks have."""
    for base in (0, 1, 10, 1000):
        counts = [base * (rank % 3) for rank in range(comm.size)]
        whole = np.arange(sum(counts), dtype=np.int32)
        first = sum(counts[: comm.rank])
        part = whole[first : first + counts[comm.rank]]
        for limit, name in ((4, "one element"), (37, "odd"), (1 << 30, "whole")):
            with largest_message(limit), comm.phase(f"{name} {base}"):
                gathered = comm.gather(part, counts)
                scattered = np.full_like(part, -1)
                comm.scatter(whole if comm.is_root else None, scattered, counts)
            assert np.array_equal(scattered, part)
            assert np.array_equal(gathered, whole) if gathered is not None else not comm.is_root
            assert comm.traffic[f"{name} {base}"].calls == 2 * -(-len(whole) // (limit // 4))


def test_waiting_for_a_gather_of_objects(comm: Comm) -> None:
    """As for any small metadata, root sleeps until the last rank is there."""
    comm.maximum(0)
    if comm.rank == comm.size - 1 != 0:
        time.sleep(1.0)
    cpu = time.process_time()
    comm.gather_object(comm.rank)
    assert comm.size == 1 or time.process_time() - cpu < 0.3


def wrong(comm: Comm) -> None:
    raise UserError(f"found by rank {comm.rank}")


def test_on_root_gives_its_result_to_all(comm: Comm) -> None:
    assert comm.on_root(lambda: comm.rank) == 0


def test_on_root_gives_its_error_to_all(comm: Comm) -> None:
    with pytest.raises(UserError, match="found by rank 0"):
        comm.on_root(lambda: wrong(comm))


def test_on_all_gives_each_its_own_result(comm: Comm) -> None:
    assert comm.on_all(lambda: comm.rank) == comm.rank


def test_on_all_names_the_rank_with_the_error(comm: Comm) -> None:
    last = comm.size - 1
    with pytest.raises(UserError, match=rf"found by rank {last} \(rank {last}\)"):
        comm.on_all(lambda: wrong(comm) if comm.rank == last else None)


def test_on_all_says_once_what_all_ranks_say(comm: Comm) -> None:
    def wrong_on_all() -> None:
        raise UserError("no GPU")

    ranks = ", ".join(map(str, range(comm.size)))
    for work in (wrong_on_all, lambda: comm.on_all(wrong_on_all)):
        with pytest.raises(UserError, match=rf"^no GPU \(rank {ranks}\)$"):
            comm.on_all(work)


def test_traffic_is_counted_by_phase(comm: Comm) -> None:
    with comm.phase("counted"):
        comm.gather(np.zeros(5, np.float64), [5] * comm.size)
    received = 5 * 8 * (comm.size - 1) if comm.is_root else 5 * 8
    assert (comm.traffic["counted"].calls, comm.traffic["counted"].bytes) == (1, received)
    with comm.phase("silent"):
        pass
    assert comm.traffic["silent"].calls == 0


def test_a_rank_that_waits_long_does_not_spin(comm: Comm) -> None:
    """It uses little of the time that it waits as CPU time, and polls: root works for a second behind that."""
    signs = 0

    def poll() -> None:
        nonlocal signs
        signs += 1
        if signs == 1:
            comm.mpi.Send(np.zeros(1), dest=0)

    if comm.is_root:
        for other in range(1, comm.size):
            comm.mpi.Recv(np.zeros(1), source=other)
        time.sleep(1.0)
    wall, cpu = time.perf_counter(), time.process_time()
    assert comm.maximum(comm.rank, poll) == comm.size - 1
    if not comm.is_root:
        assert time.process_time() - cpu < 0.5 * (time.perf_counter() - wall)
        assert signs > 1


def test_all_ranks_are_on_this_host(comm: Comm) -> None:
    assert comm.node_ranks() == list(range(comm.size))


def test_debug_prints_every_call(
    comm: Comm, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCDD_DEBUG_COMM", "1")
    talkative = Comm(comm.mpi)
    capfd.readouterr()
    talkative.gather(np.zeros(3, np.float32), [3] * comm.size)
    size = 12 * (comm.size - 1) if comm.is_root else 12
    assert f"comm: rank {comm.rank}: Gatherv {size} bytes" in capfd.readouterr().err


def test_an_mpi_library_without_threads_is_refused(comm: Comm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library(), "Query_thread", lambda: library().THREAD_FUNNELED)
    with pytest.raises(UserError, match=r"thread level 1.*MPI_THREAD_SERIALIZED \(2\)"):
        communicator.world()
