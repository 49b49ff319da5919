"""The model of the collectives, and its fit."""

from __future__ import annotations

from typing import Any

import pytest

from hpcdd.plan.collective_model import COLLECTIVES, fit, fit_all, seconds, terms
from hpcdd.plan.machine import Collective, FittedCollective, MeasuredCollective


def point(size: int, ranks: int, duration: float, collective: Collective = "send", **more: Any) -> MeasuredCollective:
    times, where = (duration, duration, duration), {"hosts": 1, "oversubscribed": False} | more
    return MeasuredCollective(
        collective=collective, ranks=ranks, size=size, seconds=times, bare=times, date="2026-11-26", **where
    )


def model(collective: Collective, latency: float, seconds_per_byte: float) -> FittedCollective:
    return FittedCollective(
        collective=collective,
        between_hosts=False,
        oversubscribed=False,
        latency=latency,
        seconds_per_byte=seconds_per_byte,
    )


@pytest.mark.parametrize(
    ("collective", "expected"),
    [
        ("allreduce", (3, 2 * 1000 * 4 / 5)),
        ("broadcast", (3, 2 * 1000 * 4 / 5)),
        ("allgather", (3, 1000 * 4 / 5)),
        ("gather", (3, 1000 * 4 / 5)),
        ("scatter", (3, 1000 * 4 / 5)),
        ("send", (1, 1000)),
    ],
)
def test_the_terms_on_five_ranks(collective: str, expected: tuple[float, float]) -> None:
    assert terms(collective, 1000, 5) == pytest.approx(expected)


@pytest.mark.parametrize(("ranks", "stages"), [(2, 1), (3, 2), (4, 2), (8, 3), (9, 4), (100_000, 17)])
def test_latency_counts_once_for_each_doubling(ranks: int, stages: int) -> None:
    assert terms("allreduce", 8, ranks)[0] == stages


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_fit_finds_what_made_the_times(collective: Collective) -> None:
    true = model(collective, 2e-6, 1e-10)
    fitted = fit(
        [
            point(size, ranks, seconds(true, size, ranks), collective)
            for ranks in (2, 3, 8)
            for size in (8, 1 << 10, 1 << 16, 1 << 24)
        ]
    )
    assert fitted.latency == pytest.approx(2e-6)
    assert fitted.seconds_per_byte == pytest.approx(1e-10)
    assert fitted.largest_error == pytest.approx(0, abs=1e-9)
    assert fitted.points == 12


def test_relative_errors_count_so_that_small_messages_do() -> None:
    """One large message that is 20% off would move the latency of an absolute fit by far more than all small ones."""
    fitted = fit([point(8, 2, 1e-6), point(64, 2, 1e-6), point(1 << 26, 2, 1.2e-2), point(1 << 20, 2, 1e-4)])
    assert fitted.latency == pytest.approx(1e-6, rel=0.1)
    assert 0.02 < fitted.largest_error < 0.4


@pytest.mark.parametrize(
    ("points", "alpha", "beta"),
    [
        ([point(1000, 2, 1e-6), point(2000, 2, 1e-6), point(4000, 2, 0.9e-6)], True, False),  # the longer the quicker
        ([point(1000, 2, 1e-6), point(1000_000, 2, 2e-3)], False, True),  # slower than in proportion
    ],
)
def test_no_negative_latency_or_bandwidth(points: list[MeasuredCollective], alpha: bool, beta: bool) -> None:
    fitted = fit(points)
    assert (fitted.latency > 0, fitted.seconds_per_byte > 0) == (alpha, beta)


def test_each_set_of_conditions_has_its_own_fit() -> None:
    points = [
        point(8, 2, 1e-6),
        point(8, 2, 5e-6, hosts=2),
        point(8, 4, 9e-6, oversubscribed=True),
        point(8, 2, 1e-6, "gather"),
    ]
    fits = fit_all(points)
    assert set(fits) == {
        ("send", False, False),
        ("send", True, False),
        ("send", False, True),
        ("gather", False, False),
    }
    assert seconds(fits["send", True, False], 8, 2) == pytest.approx(5e-6)


def test_one_rank_sends_nothing() -> None:
    assert seconds(model("allreduce", 1e-6, 1e-9), 10**9, 1) == 0
