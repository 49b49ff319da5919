"""The ledger: every call is counted once, under the phase in which it is made."""

from __future__ import annotations

import contextlib

import pytest

from hpcdd.mpi.traffic import Ledger, Traffic

from ..waiting import Clock


def test_calls_are_counted_under_the_phase_that_is_on() -> None:
    ledger = Ledger(0)
    with ledger.counted("Bcast", 3):
        pass
    with ledger.phase("local"):
        for size in (8, 100):
            with ledger.counted("Allreduce", size):
                pass
        with ledger.phase("telemetry"), ledger.counted("Isend", 20):
            pass
        with ledger.counted("Allreduce", 0):  # a call without payload is a call
            pass
    with ledger.counted("Bcast", 4):
        pass
    assert ledger.traffic == {"start": Traffic(2, 7), "local": Traffic(3, 108), "telemetry": Traffic(1, 20)}


def test_a_phase_without_a_call_stands_at_zero() -> None:
    ledger = Ledger(0)
    assert ledger.traffic == {}
    with ledger.phase("local"):
        pass
    assert ledger.traffic == {"local": Traffic(0, 0)}


def test_a_repeated_phase_continues_counting() -> None:
    ledger = Ledger(0)
    for _ in range(3):
        with ledger.phase("evaluation"), ledger.counted("Gatherv", 5):
            pass
    assert ledger.traffic["evaluation"] == Traffic(3, 15)


def test_the_outer_phase_is_restored_afterwards() -> None:
    ledger = Ledger(0)
    assert ledger.phase_name == "start"
    with ledger.phase("local"):
        with ledger.phase("agreement"):
            assert ledger.phase_name == "agreement"
        assert ledger.phase_name == "local"
    assert ledger.phase_name == "start"


def test_after_a_failure_the_name_of_its_phase_stands() -> None:
    ledger = Ledger(0)
    with pytest.raises(ZeroDivisionError), ledger.phase("local"), ledger.phase("evaluation"):
        raise ZeroDivisionError
    assert ledger.phase_name == "evaluation"


def test_a_call_that_fails_is_counted() -> None:
    ledger = Ledger(0)
    with pytest.raises(ZeroDivisionError), ledger.counted("Allreduce", 8):
        raise ZeroDivisionError
    assert ledger.traffic["start"] == Traffic(1, 8)


def test_debug_prints_every_call_with_its_duration(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCDD_DEBUG_COMM", "1")
    ledger = Ledger(3)
    with ledger.counted("Allreduce", 5608):
        clock.wait(0.25)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "comm: rank 3: Allreduce 5608 bytes 250000 us\n"


@pytest.mark.parametrize("value", ["", "0", "yes"])
def test_without_it_nothing_is_printed(
    value: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCDD_DEBUG_COMM", value)
    with Ledger(0).counted("Bcast", 1):
        pass
    assert capfd.readouterr() == ("", "")


def test_a_rank_that_an_exception_takes_out_of_a_message_no_longer_waits() -> None:
    """Else the watchdog would take whatever follows for waiting."""
    ledger = Ledger(0)
    with contextlib.suppress(RuntimeError), ledger.counted("Iallreduce", 8):
        assert ledger.inside
        raise RuntimeError("lost")
    assert not ledger.inside
