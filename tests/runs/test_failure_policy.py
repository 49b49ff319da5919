"""Which exceptions end a job at once, and which are kept until all ranks agree."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from hpcdd.core.errors import DivergedError, RunError, StopRequest, UserError
from hpcdd.mpi.communicator import world
from hpcdd.runs.failure_policy import FailurePolicy

from ..thread_ranks import ThreadComm, on_ranks

STOP = StopRequest(signal.SIGTERM, "local")
DIVERGED = DivergedError("phase local: the loss is nan")


def never() -> None:
    """While nobody waits."""


def unasked() -> bool:
    """No signal has come."""
    return False


@pytest.mark.parametrize("study", [False, True])
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_request_to_stop_waits_for_the_end_of_the_phase(study: bool, independent: bool, shared: bool) -> None:
    """Of a signal that this rank has got, or that it has heard of behind a step."""
    policy = FailurePolicy(world(), lambda: not shared, study=study)
    request = StopRequest(signal.SIGTERM, "local")
    request.shared = shared
    with policy.kept(independent=independent):
        raise request
    policy.agree(never)


@pytest.mark.parametrize("independent", [False, True])
def test_a_request_to_stop_that_nobody_has_made_ends_the_job_at_once(independent: bool) -> None:
    policy = FailurePolicy(world(), unasked, study=False)
    with pytest.raises(StopRequest), policy.kept(independent=independent):
        raise STOP


@pytest.mark.parametrize(
    ("error", "study", "independent"),
    [
        (DIVERGED, False, True),
        (UserError("a typo"), False, True),
        (UserError("a typo"), True, False),
        (ZeroDivisionError("a defect"), True, False),
        (KeyboardInterrupt(), True, True),
    ],
    ids=repr,
)
def test_what_others_may_wait_for_ends_the_job_at_once(error: BaseException, study: bool, independent: bool) -> None:
    policy = FailurePolicy(world(), unasked, study=study)
    with pytest.raises(type(error)), policy.kept(independent=independent):
        raise error
    policy.agree(never)


@pytest.mark.parametrize(
    ("error", "independent", "text", "code"),
    [
        (DIVERGED, False, r"^phase local: the loss is nan$", DIVERGED.exit_code),
        (UserError("a typo"), True, r"^rank 0 of 1 on \S+: a typo$", UserError("").exit_code),
        (
            ZeroDivisionError("a defect"),
            True,
            r"(?s)^rank 0 of 1 on \S+ failed in phase .*ZeroDivisionError: a defect$",
            1,
        ),
    ],
    ids=repr,
)
def test_in_a_study_a_failure_ends_its_run_only(error: Exception, independent: bool, text: str, code: int) -> None:
    policy = FailurePolicy(world(), unasked, study=True)
    with policy.kept(independent=independent):
        raise error
    with pytest.raises(RunError, match=text) as raised:
        policy.agree(never)
    assert raised.value.agreed == 1
    assert raised.value.exit_code == code


def test_all_ranks_raise_the_exception_of_one() -> None:
    def rank(comm: ThreadComm) -> str:
        policy = FailurePolicy(comm, unasked, study=True)  # type: ignore[arg-type]
        with policy.kept(independent=True):
            if comm.rank == 1:
                raise DIVERGED
        with pytest.raises(RunError) as raised:
            policy.agree(never)
        assert raised.value.agreed == comm.size
        return str(raised.value)

    messages: list[Any] = on_ranks(3, rank)
    assert messages == [str(DIVERGED)] * 3
