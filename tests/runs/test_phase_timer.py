"""Seconds of phases."""

from __future__ import annotations

import time

import pytest

from hpcdd.runs.phase_timer import PhaseTimer

from ..waiting import Clock


def test_a_repeated_phase_is_added_to(clock: Clock) -> None:
    timer = PhaseTimer(3.0, 2.0)
    for seconds in (5.0, 7.0):
        with timer.phase("evaluation"):
            clock.now += seconds
    assert timer.seconds == {"start": 3.0, "evaluation": 12.0}


def test_work_is_counted_and_waiting_is_not() -> None:
    timer = PhaseTimer(0.0, 0.0)
    with timer.phase("local"):
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    with timer.phase("gather"):
        time.sleep(0.05)
    assert timer.core_seconds["local"] >= 0.05 > timer.core_seconds["gather"]


def test_a_phase_that_fails_is_left_out() -> None:
    timer = PhaseTimer(0.0, 0.0)
    with pytest.raises(RuntimeError), timer.phase("local"):
        raise RuntimeError
    assert list(timer.seconds) == list(timer.core_seconds) == ["start"]
