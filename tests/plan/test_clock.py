"""Times from a machine file: measured, fitted or scaled, and slower where threads share cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hpcdd.core.errors import UserError
from hpcdd.plan.clock import FITTED, MEASURED, SCALED, Clock
from hpcdd.plan.messages import Message
from hpcdd.plan.simulate import Simulated
from hpcdd.plan.workload import Work

from .machines import machine, step


@dataclass
class Operations:
    """Stands for a workload of which only this is asked."""

    flops: int

    def simulated(self, _: Work) -> Simulated:
        return Simulated(self.flops, 0, 0)


def clock(steps: list[dict[str, Any]] | None = None, flops: int = 10**6, **more: Any) -> Clock:
    made = {"cores": more.pop("cores", 4), "fits": more.pop("fits", None)}
    ranks_per_host = more.pop("ranks_per_host", 4)
    return Clock(machine(steps=steps, **made), Operations(flops), 1, ranks_per_host, **more)  # type: ignore[arg-type]


def test_a_measured_time_is_used_as_it_is() -> None:
    machine_clock = clock([step(5e-3, network="mine"), step(1.0, network="mine", batch=64)], flops=1)
    assert machine_clock.work(Work("cnn", "mine", 32), 1) == 5e-3
    assert list(machine_clock.bases.values()) == [MEASURED]


def test_between_measured_sizes_there_is_an_overhead_and_a_rate() -> None:
    steps = [step(2e-3, network="mine", batch=1, flops=10**6), step(5e-3, network="mine", batch=4, flops=4 * 10**6)]
    machine_clock = clock([*steps, step(1.0)], flops=2 * 10**6)
    assert machine_clock.work(Work("cnn", "mine", 2), 1) == pytest.approx(3e-3)
    assert list(machine_clock.bases.values()) == [FITTED]


def test_a_network_that_was_not_measured_takes_its_operations_at_the_rate_of_the_nearest() -> None:
    machine_clock = clock([step(1e-3), step(1.0, network="huge", flops=10**9)], flops=3 * 10**6)
    assert machine_clock.work(Work("cnn", "mine", 32), 1) == pytest.approx(3e-3)
    assert list(machine_clock.bases.values()) == [SCALED]


@pytest.mark.parametrize(
    ("busy", "expected"),
    [(1, 1e-3), (2, 3e-3), (3, 3e-3), (8, 3e-3 * 8 / 4)],  # measured; measured; the next fewer; eight on four cores
)
def test_ranks_of_a_host_slow_each_other_down(busy: int, expected: float) -> None:
    machine_clock = clock([step(1e-3, network="mine"), step(3e-3, network="mine", busy=2)], ranks_per_host=8)
    assert machine_clock.work(Work("cnn", "mine", 32), busy) == pytest.approx(expected)


def test_a_missing_time_is_reported() -> None:
    with pytest.raises(UserError, match=r"no time of a step of kind 'cnn' in bf16 on cpu with 1 thread; add it by"):
        clock().work(Work("cnn", "mine", 32, precision="bf16"), 1)
    with pytest.raises(UserError, match="no model of send; add it by `mpirun -n N hpcdd bench collectives"):
        clock().messages([Message("send", 8, 2, 8, "a CNN")], 2)


def test_messages_use_the_closest_fit_and_a_note_says_so() -> None:
    fits = [{"collective": "send", "latency": 1e-5}, {"collective": "send", "latency": 1e-3, "oversubscribed": True}]
    sent = [Message("send", 1000, 2, 1000, "a CNN", 3), Message("send", 1000, 1, 1000, "nothing")]
    within, between = clock(fits=fits), clock(fits=fits, ranks_per_host=2)
    assert within.messages(sent, 4) == pytest.approx(3 * (1e-5 + 1e-6))
    assert not within.notes
    assert between.messages(sent, 4) == pytest.approx(3 * (1e-5 + 1e-6))
    assert list(between.notes) == [
        "messages between hosts: not in the machine file; times are those within a host with a core for each rank"
    ]
    assert clock(fits=fits, cores=2).messages(sent, 4) == pytest.approx(3 * (1e-3 + 1e-6))
