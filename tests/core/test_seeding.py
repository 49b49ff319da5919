"""Random streams: fixed for ever, and different wherever anything differs."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hpcdd.core.seeding import WHOLE, seed_of

seeds = st.integers(0, 2**70)
purposes = st.text(max_size=20)
streams = st.tuples(seeds, purposes, st.integers(-1, 10_000), st.integers(0, 10_000))


def of(stream: tuple[int, str, int, int]) -> int:
    seed, purpose, subdomain, epoch = stream
    return seed_of(seed, purpose, subdomain=subdomain, epoch=epoch)


@given(stream=streams)
def test_63_bits(stream: tuple[int, str, int, int]) -> None:
    assert 0 <= of(stream) < 2**63
    assert of(stream) == of(stream)


@given(one=streams, other=streams)
def test_different_streams_have_different_seeds(
    one: tuple[int, str, int, int], other: tuple[int, str, int, int]
) -> None:
    assert (of(one) == of(other)) == (one == other)


def test_a_whole_run_has_no_seed_twice() -> None:
    drawn = [
        seed_of(seed, purpose, subdomain=subdomain, epoch=epoch)
        for seed, purpose, subdomain, epoch in itertools.product(
            (0, 1, 2), ("local order", "local dropout", "initial parameters"), range(WHOLE, 64), range(50)
        )
    ]
    assert len(set(drawn)) == len(drawn)


def test_no_single_subdomain_is_the_default() -> None:
    assert seed_of(3, "x") == seed_of(3, "x", subdomain=WHOLE, epoch=0)
    assert seed_of(3, "x") != seed_of(3, "x", subdomain=0)


def test_seeds_stay_what_they_are() -> None:
    """A change here changes the results of everybody's old configurations."""
    assert seed_of(0, "order") == 6_230_928_577_095_065_118
    assert seed_of(42, "local order", subdomain=3, epoch=7) == 6_833_128_312_717_754_628


def test_another_process_with_another_hash_seed_gets_the_same() -> None:
    code = "from hpcdd.core.seeding import seed_of; print(seed_of(5, 'local order', subdomain=2, epoch=1))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert int(printed.stdout) == seed_of(5, "local order", subdomain=2, epoch=1)


def test_numpys_global_state_is_left_alone() -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    seed_of(1, "x")
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_bits_are_spread_evenly() -> None:
    """Seeds of neighbouring epochs differ in half of their bits, on average."""
    drawn = [seed_of(0, "order", epoch=epoch) for epoch in range(2000)]
    flips = [(a ^ b).bit_count() for a, b in itertools.pairwise(drawn)]
    assert abs(sum(flips) / len(flips) - 31.5) < 0.5  # six standard errors
