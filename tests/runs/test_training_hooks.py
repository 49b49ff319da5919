"""What happens at a step boundary and at the end of an epoch."""

from __future__ import annotations

import logging
import math
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcdd.core.errors import StopRequest
from hpcdd.mpi.communicator import Comm
from hpcdd.mpi.stop import Stop
from hpcdd.runs.progress.telemetry import Telemetry
from hpcdd.runs.training_hooks import TrainingHooks
from hpcdd.training.status import Status

from ..waiting import wait_until

STATUS = Status("local", 1, 1, 2, 0.5, 0.7, 0.6, None, None, 0.1, 3.0, 100.0)
LOG = logging.getLogger("test of hooks")


@pytest.fixture
def sent() -> list[tuple[Status, str]]:
    """The statuses that have reached root's display and metrics.jsonl, with their moments."""
    return []


@pytest.fixture
def stop(one_rank: Comm) -> Stop:
    stop = Stop(one_rank, one_rank.side_channel())
    stop.listen()
    return stop


@pytest.fixture
def hooks(one_rank: Comm, stop: Stop, sent: list[tuple[Status, str]]) -> TrainingHooks:
    telemetry = Telemetry(one_rank, stop._channel, lambda *of_status: sent.append(of_status), 0.0)
    return TrainingHooks(one_rank, stop, telemetry, LOG)


def test_an_independent_training_stops_at_once(hooks: TrainingHooks) -> None:
    training = hooks.make(independent=True)
    training.step()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(StopRequest):
        training.step()
    assert hooks.steps == 2


def test_a_training_with_messages_is_only_told(hooks: TrainingHooks, stop: Stop) -> None:
    """Others wait for the messages of this step; the wish is piggybacked on them."""
    training = hooks.make(independent=False)
    signal.raise_signal(signal.SIGTERM)
    training.step()
    assert stop.wanted()


def test_requests_of_other_ranks_are_received_at_every_step(one_rank: Comm) -> None:
    """And statuses, without which root's display would stand still."""
    polled: list[str] = []
    stop = SimpleNamespace(check=lambda: polled.append("check"), poll=lambda: polled.append("poll"))
    telemetry = SimpleNamespace(poll=lambda: polled.append("statuses"))
    hooks = TrainingHooks(one_rank, cast(Any, stop), cast(Any, telemetry), LOG)
    for independent in (True, False):
        hooks.make(independent=independent, reports=False).step()
    assert polled == ["check", "statuses", "poll", "statuses"]


def test_what_a_rank_that_reports_sends(
    hooks: TrainingHooks, sent: list[tuple[Status, str]], caplog: pytest.LogCaptureFixture
) -> None:
    training = hooks.make(independent=True)
    wait_until(training.due)
    with caplog.at_level(logging.INFO):
        training.status(STATUS)
        training.history([STATUS])
        assert caplog.messages == []
        training.epoch(STATUS)
    assert sent == [(STATUS, "within epoch"), (STATUS, "earlier job"), (STATUS, "end of epoch")]
    assert caplog.messages == [str(STATUS)]


def test_a_rank_that_does_not_report_only_logs_its_epochs(
    hooks: TrainingHooks, sent: list[tuple[Status, str]], caplog: pytest.LogCaptureFixture
) -> None:
    training = hooks.make(independent=True, reports=False)
    assert not training.due()
    with caplog.at_level(logging.INFO):
        training.status(STATUS)
        training.history([STATUS])
        training.epoch(STATUS)
    assert sent == []
    assert caplog.messages == [str(STATUS)]


def test_the_messages_of_an_evaluation_are_not_those_of_steps(hooks: TrainingHooks, one_rank: Comm) -> None:
    with one_rank.phase("coherent_transfer"), hooks.make(independent=False).evaluation():
        one_rank.maximum(0)
    assert (one_rank.traffic["coherent_transfer"].calls, one_rank.traffic["evaluation"].calls) == (0, 1)


def test_the_first_step_ends_where_the_second_begins(hooks: TrainingHooks, one_rank: Comm) -> None:
    training = hooks.make(independent=True)
    training.step()
    assert "first_step" not in one_rank.startup.seconds
    training.step()
    seconds = one_rank.startup.seconds["first_step"]
    training.step()
    assert math.isfinite(seconds)
    assert one_rank.startup.seconds["first_step"] == seconds


def test_a_tracer_gets_every_step_with_its_phase(one_rank: Comm, stop: Stop) -> None:
    traced: list[str] = []
    telemetry = Telemetry(one_rank, stop._channel, lambda *_: None, math.inf)
    hooks = TrainingHooks(one_rank, stop, telemetry, LOG, cast(Any, SimpleNamespace(step=traced.append)))
    training = hooks.make(independent=False)
    for phase in ("dnn", "global"):
        with one_rank.phase(phase):
            training.step()
    assert traced == ["dnn", "global"]
