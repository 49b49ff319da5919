"""The end of an epoch is decided once, and copies that drift apart are noticed there, on every rank."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

from hpcdd.training.replica_checks import TOLERANCE, DriftError, checked
from hpcdd.training.status import Ending, Hooks

from ..thread_ranks import ThreadComm, on_ranks

ENDING = Ending("coherent_transfer", 4, (30.0, 20.0, 40.0), (0.5, 0.75), None)
ROUNDED = 1.0 + 2**-23


def copies(value: float = 1.0) -> list[torch.Tensor]:
    return [torch.zeros(3), torch.tensor([2.0, value])]


def agree(
    comm: ThreadComm, named_copies: dict[str, list[torch.Tensor]], ending: Ending = ENDING, kind: str = ""
) -> Ending:
    return checked(Hooks(), comm, named_copies, kind).agree(ending)


def test_like_copies_pass_after_one_exchange() -> None:
    def work(comm: ThreadComm) -> int:
        agree(comm, {"CNN 1": copies(), "the DNN": copies(5.0)})
        return comm.calls

    assert on_ranks(3, work) == [1, 1, 1]


def test_a_copy_that_differs_is_named_on_every_rank_with_all_checksums() -> None:
    def work(comm: ThreadComm) -> str:
        with pytest.raises(DriftError) as caught:
            agree(comm, {"CNN 1": copies(), "the DNN": copies(ROUNDED if comm.rank == 1 else 1.0)})
        return str(caught.value)

    messages = on_ranks(3, work)
    assert len(set(messages)) == 1
    assert messages[0].startswith("coherent_transfer, epoch 4: copies of the DNN differ between ranks")
    values = re.findall(r"rank (\d) ([0-9a-f]{8})", messages[0])
    assert [rank for rank, _ in values] == ["0", "1", "2"]
    assert values[0][1] == values[2][1] != values[1][1]


@pytest.mark.parametrize("different", [False, True])
def test_what_only_some_ranks_have_is_compared_among_them(different: bool) -> None:
    def work(comm: ThreadComm) -> bool:
        # Ranks 0 and 2 have CNN 0, ranks 1 and 3 have CNN 1, whose parameters are others.
        value = 10.0 * (comm.rank % 2) + (different and comm.rank == 3)
        try:
            agree(comm, {f"CNN {comm.rank % 2}": copies(value)})
        except DriftError as error:
            assert re.search(r"CNN 1 .*rank 1 .*rank 3 ", str(error))  # noqa: PT017
            return False
        return True

    assert on_ranks(4, work) == [not different] * 4


def test_on_unlike_processors_all_take_over_the_first_copy() -> None:
    """Of CNN 1 the first is on rank 1; rank 0 has none."""

    def work(comm: ThreadComm) -> tuple[float, float]:
        dnn, cnn = copies(1.0 + comm.rank * 2**-23), copies(3.0 + comm.rank * 2**-20)
        named_copies = {"the DNN": dnn, **({"CNN 1": cnn} if comm.rank else {})}
        agree(comm, named_copies, kind="new" if comm.rank == 2 else "old")
        return float(dnn[1][1]), float(cnn[1][1])

    taken = 3.0 + 2**-20
    assert on_ranks(3, work) == [(1.0, 3.0), (1.0, taken), (1.0, taken)]


def test_a_defect_is_found_on_unlike_processors_too() -> None:
    def work(comm: ThreadComm) -> str:
        with pytest.raises(DriftError) as caught:
            agree(comm, {"the DNN": copies(1.0 + 4 * TOLERANCE * comm.rank)}, kind=f"processor {comm.rank}")
        return str(caught.value)

    messages = on_ranks(2, work)
    assert len(set(messages)) == 1
    assert "copies of the DNN differ between ranks by more than different processors explain" in messages[0]
    assert "rank 1 0.018" in messages[0]


def test_like_ranks_are_held_to_their_bits_beside_unlike_ones() -> None:
    """Rank 1 is of another kind than all others, but has no copy of what differs."""

    def work(comm: ThreadComm) -> None:
        named_copies = {} if comm.rank == 1 else {"CNN 0": copies(1.0 if comm.rank == 0 else ROUNDED)}
        with pytest.raises(DriftError, match="CNN 0 differ between ranks .checksums: rank 0 .*, rank 2"):
            agree(comm, named_copies, kind="other" if comm.rank == 1 else "same")

    on_ranks(3, work)


def test_the_first_rank_decides_for_all() -> None:
    def work(comm: ThreadComm) -> Ending:
        return agree(comm, {}, replace(ENDING, validation=(0.5, 0.75 + comm.rank / 100)))

    assert on_ranks(3, work) == [ENDING] * 3


@pytest.mark.parametrize(
    "bad_ending",
    [replace(ENDING, diverged="subdomain 2: nan"), replace(ENDING, sums=(math.nan, 1.0, 40.0))],
    ids=["told", "summed"],
)
def test_what_one_rank_can_not_go_on_with_all_hear_of(bad_ending: Ending) -> None:
    """Copies of it are not compared: they are no numbers any more."""

    def work(comm: ThreadComm) -> Ending:
        return agree(comm, {"the DNN": copies(comm.rank)}, bad_ending if comm.rank == 1 else ENDING)

    assert [repr(ending) for ending in on_ranks(3, work)] == [repr(bad_ending)] * 3


def test_other_hooks_are_left_as_they_are() -> None:
    hooks = Hooks(step=lambda: None, due=lambda: True, status=lambda _: None, epoch=lambda _: None)

    def work(comm: ThreadComm) -> bool:
        wrapped = checked(hooks, comm, {})
        return replace(wrapped, agree=hooks.agree) == hooks

    assert on_ranks(1, work) == [True]
