"""The memory that gather takes on root, known and checked before any training."""

from __future__ import annotations

import pytest

from hpcdd.errors import UserError
from hpcdd.phases.gather import PIECE_BYTES, bytes_on_root, check_memory


def test_small_data_sets_take_four_copies_of_the_logits() -> None:
    assert bytes_on_root(100, 4, 10) == 4 * (4 * 100 * 4 * 10)


def test_large_data_sets_take_two_copies_and_two_pieces() -> None:
    logits = 4 * 1_281_167 * 64 * 1000  # ImageNet on 8 x 8 subdomains: 305 GiB of logits
    assert bytes_on_root(1_281_167, 64, 1000) == 2 * logits + 2 * PIECE_BYTES


def test_pieces_stop_growing_where_the_logits_fill_one() -> None:
    fitting = PIECE_BYTES // (4 * 4 * 10)
    grown = [bytes_on_root(n + 1, 4, 10) - bytes_on_root(n, 4, 10) for n in (1, fitting - 1, fitting + 1, 10 * fitting)]
    assert grown == [4 * 160, 4 * 160, 2 * 160, 2 * 160]


def test_what_fits_passes_and_what_does_not_is_told_with_both_numbers() -> None:
    check_memory(5 << 30, 5 << 30)
    with pytest.raises(UserError, match=r"root needs 611\.0 GiB .* but 7\.0 GiB are free"):
        check_memory(bytes_on_root(1_281_167, 64, 1000), 7 << 30)
    with pytest.raises(UserError):
        check_memory((5 << 30) + 1, 5 << 30)
