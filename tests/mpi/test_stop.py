"""Why a batch system sends a signal."""

from __future__ import annotations

import signal

import pytest

from hpcdd.core.errors import RESUME, StopRequest
from hpcdd.mpi.stop import signal_reason


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
