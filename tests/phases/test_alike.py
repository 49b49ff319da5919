"""Copies that drift apart are noticed at the end of the epoch, on every rank."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from hpcdd.phases.alike import DriftError, check_alike, checked
from hpcdd.phases.status import Hooks, Status

from ..thread_ranks import ThreadComm, on_ranks

STATUS = Status("local", 2, 3, 5, 0.6, 0.75, 0.5, None, None, 1e-3, 3.5, 1234.5)


def copies(value: float = 1.0) -> list[torch.Tensor]:
    return [torch.zeros(3), torch.tensor([2.0, value])]


def test_like_copies_pass_after_one_exchange() -> None:
    def work(comm: ThreadComm) -> int:
        check_alike(comm, {"CNN 1": copies(), "the DNN": copies(5.0)}, "now")
        return comm.calls

    assert on_ranks(3, work) == [1, 1, 1]


def test_a_copy_that_differs_is_named_on_every_rank_with_all_checksums() -> None:
    def work(comm: ThreadComm) -> str:
        own = {"CNN 1": copies(), "the DNN": copies(1.0 + 2**-23 if comm.rank == 1 else 1.0)}
        with pytest.raises(DriftError) as caught:
            check_alike(comm, own, "coherent_transfer, epoch 4")
        return str(caught.value)

    messages = on_ranks(3, work)
    assert len(set(messages)) == 1
    assert messages[0].startswith("coherent_transfer, epoch 4: copies of the DNN differ between ranks")
    values = re.findall(r"rank (\d) ([0-9a-f]{8})", messages[0])
    assert [rank for rank, _ in values] == ["0", "1", "2"]
    assert values[0][1] == values[2][1] != values[1][1]


def test_what_only_some_ranks_have_is_compared_among_them() -> None:
    def work(different: bool) -> list[bool]:
        def on_rank(comm: ThreadComm) -> bool:
            # Ranks 0 and 2 have CNN 0, ranks 1 and 3 have CNN 1, whose parameters are others.
            value = 10.0 * (comm.rank % 2) + (different and comm.rank == 3)
            try:
                check_alike(comm, {f"CNN {comm.rank % 2}": copies(value)}, "now")
            except DriftError as error:
                assert re.search(r"CNN 1 .*rank 1 .*rank 3 ", str(error))  # noqa: PT017
                return False
            return True

        return on_ranks(4, on_rank)

    assert work(different=False) == [True] * 4
    assert work(different=True) == [False] * 4


def test_hooks_check_at_the_end_of_every_epoch_before_it_is_told() -> None:
    """The messages of the check are counted as those of the evaluation."""

    def work(comm: ThreadComm) -> tuple[list[str], int, int]:
        told: list[str] = []
        mine = copies()

        @contextmanager
        def evaluation() -> Iterator[None]:
            with comm.ledger.phase("evaluation"):
                yield

        hooks = Hooks(
            step=lambda: told.append("step"),
            due=lambda: True,
            status=lambda _: told.append("status"),
            epoch=lambda _: told.append("epoch"),
            evaluation=evaluation,
        )
        wrapped = checked(hooks, comm, {"CNN 2": mine})
        assert (wrapped.step, wrapped.due, wrapped.status, wrapped.evaluation) == (
            hooks.step, hooks.due, hooks.status, hooks.evaluation,
        )  # fmt: skip
        wrapped.epoch(STATUS)
        mine[1] += comm.rank
        with pytest.raises(DriftError, match="^local, epoch 3: copies of CNN 2 differ"):
            wrapped.epoch(STATUS)
        return told, comm.ledger.traffic["evaluation"].calls, comm.calls

    assert on_ranks(2, work) == [(["epoch"], 2, 2)] * 2
