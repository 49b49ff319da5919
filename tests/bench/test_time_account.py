"""Every moment of a rank belongs to one entry."""

from __future__ import annotations

import pytest

from hpcdd.bench.time_account import CATEGORIES, Account, AccountEntry
from hpcdd.training.step_timing import EVALUATION, marked, part

from ..waiting import Clock

PAUSE = 0.5


def test_entries_exclude_each_other_and_add_up(clock: Clock) -> None:
    account = Account(0)
    account.begin()
    with marked(account.part):
        clock.wait(PAUSE)
        with account.phase("read"):
            clock.wait(PAUSE)
        with account.phase("local"):
            with part("forward"):
                clock.wait(2 * PAUSE)
                with account.counted("Allreduce", 8):
                    clock.wait(3 * PAUSE)
            with account.phase("evaluation"):
                with part(EVALUATION):
                    clock.wait(PAUSE)
                with account.phase("checkpoint"):
                    clock.wait(4 * PAUSE)
            with account.phase("agreement"), account.waiting():
                clock.wait(PAUSE)
    whole = account.end()
    assert whole == pytest.approx(sum(account.seconds.values()))
    by_category = account.by_category()
    assert tuple(by_category) == CATEGORIES
    assert sum(by_category.values()) == pytest.approx(whole)
    expected = {"forward": 2, "evaluation": 1, "waiting": 4, "checkpoints": 4, "reading": 1, "bookkeeping": 1}
    for name, seconds in by_category.items():
        assert seconds == pytest.approx(expected.get(name, 0) * PAUSE), name
    assert account.steps_by_phase() == {"local": pytest.approx(6 * PAUSE)}
    assert account.by_phase()["local"] == pytest.approx(account.ends["local"] - account.ends["read"])
    assert account.traffic["local"].calls == 1


def test_waiting_inside_a_step_is_waiting_and_part_of_the_step() -> None:
    entry = AccountEntry("coherent_transfer", "", "forward", waits=True)
    assert entry.category == "waiting"
    assert AccountEntry("examination", "agreement").category == "records"
    assert AccountEntry("local", "evaluation").category == AccountEntry("evaluation").category == "evaluation"
    assert AccountEntry("local", "telemetry").category == AccountEntry().category == "bookkeeping"
