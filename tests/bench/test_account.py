"""Every moment of a rank belongs to one entry."""

from __future__ import annotations

import time

import pytest

from hpcdd.bench.account import CATEGORIES, Account, Entry
from hpcdd.phases.parts import EVALUATION, marked, part

PAUSE = 0.02


def test_entries_exclude_each_other_and_add_up() -> None:
    account = Account(0)
    account.begin()
    with marked(account.part):
        time.sleep(PAUSE)
        with account.phase("read"):
            time.sleep(PAUSE)
        with account.phase("local"):
            with part("forward"):
                time.sleep(2 * PAUSE)
                with account.counted("Allreduce", 8):
                    time.sleep(3 * PAUSE)
            with account.phase("evaluation"):
                with part(EVALUATION):
                    time.sleep(PAUSE)
                with account.phase("checkpoint"):
                    time.sleep(4 * PAUSE)
            with account.phase("agreement"), account.waiting():
                time.sleep(PAUSE)
    whole = account.end()
    assert whole == pytest.approx(sum(account.seconds.values()))
    found = account.by_category()
    assert tuple(found) == CATEGORIES
    assert sum(found.values()) == pytest.approx(whole)
    expected = {"forward": 2, "evaluation": 1, "waiting": 4, "checkpoints": 4, "reading": 1, "bookkeeping": 1}
    for name, seconds in found.items():
        assert expected.get(name, 0) * PAUSE <= seconds < (expected.get(name, 0) + 1) * PAUSE + 0.5 * whole, name
    assert account.steps_by_phase().keys() == {"local"}
    assert 6 * PAUSE <= account.steps_by_phase()["local"] < whole - 7 * PAUSE
    assert account.by_phase()["local"] == pytest.approx(account.ends["local"] - account.ends["read"], abs=PAUSE)
    assert account.traffic["local"].calls == 1


def test_waiting_inside_a_step_is_waiting_and_part_of_the_step() -> None:
    entry = Entry("coherent_transfer", "", "forward", waits=True)
    assert entry.category == "waiting"
    assert Entry("examination", "agreement").category == "records"
    assert Entry("local", "evaluation").category == Entry("evaluation").category == "evaluation"
    assert Entry("local", "telemetry").category == Entry().category == "bookkeeping"
