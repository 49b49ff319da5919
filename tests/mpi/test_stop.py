"""Why a batch system sends a signal, and how ranks agree on it."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from typing import Any, cast

import pytest

from hpcdd.core.errors import RESUME, StopRequest
from hpcdd.mpi.stop import Stop, signal_reason

from ..thread_ranks import ThreadChannel, ThreadComm, on_ranks
from ..waiting import Clock


def stops(size: int) -> tuple[list[Stop], list[deque[tuple[int, Any]]]]:
    """One of each rank, all in one thread, and what is on its way to each rank."""
    letters: list[deque[tuple[int, Any]]] = [deque() for _ in range(size)]
    barrier = cast(Any, None)  # no collective
    return [
        Stop(ThreadComm(rank, size, barrier, []), cast(Any, ThreadChannel(rank, letters))) for rank in range(size)
    ], letters


@pytest.mark.parametrize(
    ("signum", "left", "reason"),
    [
        (signal.SIGTERM, 30, "time-out with 30 s left of the job's time"),
        (signal.SIGUSR1, 120, "time-out with 120 s left of the job's time"),
        (signal.SIGTERM, -5, "time-out with 0 s left of the job's time"),
        (signal.SIGTERM, 7200, "preempted or cancelled with 7,200 s left of the job's time"),
        (signal.SIGUSR2, 7200, "preempted or cancelled with 7,200 s left of the job's time"),
        (signal.SIGINT, 7200, "interrupted"),
        (signal.SIGTERM, None, "terminated: preempted, cancelled or out of time"),
        (signal.SIGUSR1, None, "warned that the job's time is nearly up"),
        (signal.SIGINT, None, "interrupted"),
    ],
)
def test_a_time_out_is_distinguished_from_a_preemption(signum: int, left: int | None, reason: str) -> None:
    environment = {} if left is None else {"SLURM_JOB_END_TIME": str(1_000_000 + left)}
    assert signal_reason(signum, environment, now=1_000_000) == reason


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_the_exit_code_says_go_on(name: str) -> None:
    assert StopRequest(signal.Signals[name], "local").exit_code == RESUME == 75
    assert StopRequest(signal.SIGINT, "local").exit_code == 130


def test_a_request_reaches_all_ranks_over_root() -> None:
    ranks, letters = stops(4)
    ranks[2]._on_signal(signal.SIGUSR1, None)
    ranks[2].poll()
    assert [len(box) for box in letters] == [1, 0, 0, 0]
    ranks[0].poll()
    assert [len(box) for box in letters] == [0, 1, 1, 1]
    for rank in (1, 3):
        assert not ranks[rank].wanted()
        with pytest.raises(StopRequest, match="SIGUSR1"):
            ranks[rank].check()
    for _ in range(4):
        for stop in ranks:
            stop.poll()
    assert not any(letters), "and no rank repeats it for ever"


def test_without_a_request_no_rank_sends_anything() -> None:
    """The local phase stays without messages."""
    ranks, letters = stops(3)
    for stop in ranks:
        stop.check()
    assert not any(letters)
    assert all(stop._comm.traffic == {} for stop in ranks)


def test_two_ranks_that_get_the_signal_at_once_disturb_nobody() -> None:
    """A launcher passes it on to all."""
    ranks, letters = stops(3)
    for stop in ranks:
        stop._on_signal(signal.SIGTERM, None)
    for _ in range(3):
        for stop in ranks:
            with pytest.raises(StopRequest):
                stop.check()
    assert not any(letters)


def test_at_the_end_of_a_phase_all_stop_with_the_signal_of_one() -> None:
    letters: list[deque[tuple[int, Any]]] = [deque() for _ in range(3)]

    def rank(comm: ThreadComm) -> StopRequest:
        stop = Stop(comm, cast(Any, ThreadChannel(comm.rank, letters)))
        stop.agree("read")  # nobody has asked
        if comm.rank == 1:
            stop._on_signal(signal.SIGINT, None)
        with pytest.raises(StopRequest) as raised:
            stop.agree("local")
        return raised.value

    requests = on_ranks(3, rank)
    assert {(request.signum, request.phase, request.agreed) for request in requests} == {(signal.SIGINT, "local", 3)}


def test_only_a_second_request_of_someone_impatient_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same signal comes twice within a moment where a batch system sends it to the launcher and to the ranks."""
    clock, ended = Clock(), []
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(os, "_exit", ended.append)
    (stop, _), _ = stops(2)
    stop._on_signal(signal.SIGTERM, None)
    clock.wait(0.9)
    stop._on_signal(signal.SIGTERM, None)
    assert ended == []
    clock.wait(0.2)
    stop._on_signal(signal.SIGINT, None)
    assert ended == [130]
