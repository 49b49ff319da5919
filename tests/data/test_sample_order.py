"""The order of samples: each once, mixed, the same for all who ask, by blocks wherever they are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.data import sample_order
from hpcdd.data.format import inspect
from hpcdd.data.sample_order import BlockShuffle, Shuffle, blocks_in_window, order_of

sizes = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@settings(deadline=None)
@given(sizes=sizes, windows=st.integers(1, 12), seed=st.integers(0, 2**62))
def test_each_sample_once_and_each_block_in_one_window(sizes: list[int], windows: int, seed: int) -> None:
    block = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    n = len(block)
    visits, ends = BlockShuffle(windows, block=block).draw(n, seed)
    assert sorted(visits.tolist()) == list(range(n))
    assert ends[-1] == n
    assert ends == sorted(set(ends))
    of_window = [set(block[part].tolist()) for part in torch.tensor_split(visits, ends[:-1])]
    assert sum(map(len, of_window)) == len(set.union(*of_window)) == len(sizes)
    repeated = BlockShuffle(windows, block=block).draw(n, seed)
    assert torch.equal(visits, repeated[0])
    assert ends == repeated[1]


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_what_fits_in_one_window_is_shuffled_as_a_whole(n: int) -> None:
    by_blocks = BlockShuffle(1, block=torch.arange(n) // 7).draw(n, 5)
    plain = Shuffle().draw(n, 5)
    assert torch.equal(by_blocks[0], plain[0])
    assert by_blocks[1] == plain[1] == [n]
    assert n < 1000 or not torch.equal(plain[0], Shuffle().draw(n, 6)[0])


def test_blocks_and_samples_are_mixed_anew_by_each_seed() -> None:
    by_blocks = BlockShuffle(8, block=torch.arange(4000) // 10)
    where = torch.zeros(4000, 8)
    positions = torch.empty(400, 4000)
    for seed in range(400):
        visits, ends = by_blocks.draw(4000, seed)
        window = torch.bucketize(torch.arange(4000), torch.tensor(ends), right=True)
        where[visits, window] += 1
        positions[seed, visits] = torch.arange(4000.0)
    assert where.min() > 20  # of 50 expected: each sample comes into each window, equally often
    assert where.max() < 85
    assert (positions.mean(1) - 1999.5).abs().max() < 1e-3
    assert (positions.mean(0) - 1999.5).abs().max() < 300  # five standard deviations of the mean of 400


@pytest.mark.parametrize(("num_classes", "each", "window"), [(2, 5000, 1000), (10, 5000, 10_000), (100, 500, 2000)])
def test_a_window_of_a_sorted_file_is_like_the_whole(num_classes: int, each: int, window: int) -> None:
    """Each class in proportion, to two of its four blocks or more."""
    labels = torch.arange(num_classes).repeat_interleave(each)
    windows, size = len(labels) // window, window // blocks_in_window(num_classes)
    visits, ends = BlockShuffle(windows, block=torch.arange(len(labels)) // size).draw(len(labels), 0)
    for window_labels in torch.tensor_split(labels[visits], ends[:-1]):
        counts = torch.bincount(window_labels, minlength=num_classes) * num_classes / len(window_labels)
        assert counts.min() > 0.5
        assert counts.max() < 1.6
        first = torch.bincount(window_labels[: window // 2], minlength=num_classes) * num_classes / (window // 2)
        assert (first - counts).abs().max() < 6 * (num_classes / window) ** 0.5


def test_blocks_and_windows_come_from_the_file_alone(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = inspect(tiny)
    assert order_of(info, None, 16).windows == 1
    monkeypatch.setattr(sample_order, "WINDOW_BYTES", 64 * 144)
    whole = order_of(dataclasses.replace(info, rows_at_once=3), None, 16)
    assert isinstance(whole, BlockShuffle)
    assert whole.windows == 5
    assert whole.block.tolist() == [row // 3 for row in range(300)]
    some = order_of(info, np.arange(0, 300, 2), 16, divisor=2)
    assert isinstance(some, BlockShuffle)
    assert some.windows == 5  # 150 samples in windows of 32
    assert some.block.tolist() == [row // 2 for row in range(0, 300, 2)]  # 16 blocks in a window, not one chunk
    assert order_of(info, None, 0) == Shuffle(5)


def test_without_blocks_windows_are_even_parts_of_a_random_order() -> None:
    visits, ends = Shuffle(3).draw(10, 5)
    assert torch.equal(visits, Shuffle().draw(10, 5)[0])
    assert ends == [4, 7, 10]
