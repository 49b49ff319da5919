"""Shards of a batch: who has which rows, and how the parts are gathered again."""

from __future__ import annotations

import copy
import signal
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpcdd.core.errors import StopRequest
from hpcdd.mpi import communicator as comm
from hpcdd.parallel.batch_shards import BatchSharing, Flag, broadcast_state

from ..thread_ranks import ThreadComm, on_ranks


@pytest.mark.parametrize("one_rank", [False, True], ids=["alone", "one rank"])
def test_who_shares_with_nobody_has_everything_and_sends_nothing(one_rank: bool) -> None:
    world = comm.world()
    sharing = BatchSharing(world if one_rank else None)
    assert sharing.comm is None
    assert sharing.part_of(7) == slice(0, 7)
    batch = torch.tensor([4, 2, 9])
    shard = sharing.shard(batch)
    assert torch.equal(shard.samples, batch)
    assert (shard.total, shard.rows, shard.weight) == (3, slice(0, 3), 1.0)
    values = torch.tensor([1.5, 2.5], dtype=torch.float64)
    assert torch.equal(sharing.sum(values), values)
    part = torch.randn(7, 3)
    assert sharing.all_gather(part, 7) is part
    network = nn.BatchNorm1d(3)
    BatchSharing(world, exact=False).average_buffers(network)
    assert torch.equal(network.running_var, torch.ones(3))
    assert world.traffic == {}


def test_of_an_empty_batch_the_weight_is_zero() -> None:
    assert BatchSharing().shard(torch.arange(0)).weight == 0


def test_a_shard_is_not_changed_by_the_next_one() -> None:
    sharing = BatchSharing(fake_comm(1, 2))
    first, second = sharing.shard(torch.arange(7)), sharing.shard(torch.arange(10, 14))
    assert (first.samples.tolist(), first.rows, first.total) == ([4, 5, 6], slice(4, 7), 7)
    assert (second.samples.tolist(), second.rows, second.total) == ([12, 13], slice(2, 4), 4)
    with pytest.raises(FrozenInstanceError):
        first.total = 4  # type: ignore[misc]


@given(st.integers(1, 6), st.integers(0, 30))
def test_parts_are_balanced_and_in_order(ranks: int, n: int) -> None:
    sharings = [BatchSharing(fake_comm(rank, ranks)) for rank in range(ranks)]
    batch = torch.arange(100, 100 + n)
    shards = [sharing.shard(batch) for sharing in sharings]
    assert torch.equal(torch.cat([shard.samples for shard in shards]), batch)
    sizes = [len(shard.samples) for shard in shards]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1
    for shard in shards:
        assert shard.total == n
        assert torch.equal(batch[shard.rows], shard.samples)
    assert [sharing.part_of(n) for sharing in sharings] == [shard.rows for shard in shards]
    if n:
        assert sum(shard.weight for shard in shards) == pytest.approx(1.0)


def fake_comm(rank: int, size: int) -> ThreadComm:
    """A rank that sends nothing."""
    return ThreadComm(rank, size, None, [])  # type: ignore[arg-type]


def test_the_shares_weighted_mean_losses_add_up_to_the_batchs_mean_loss() -> None:
    losses = torch.randn(7, dtype=torch.float64)
    total = 0.0
    for rank in range(3):
        shard = BatchSharing(fake_comm(rank, 3)).shard(torch.arange(7))
        total += float(losses[shard.samples].mean()) * shard.weight
    assert total == pytest.approx(float(losses.mean()), abs=1e-15)


@pytest.mark.parametrize("direct", [False, True], ids=["arrays", "tensors"])
def test_sums_are_the_same_on_every_rank(direct: bool) -> None:
    def work(comm: ThreadComm) -> list[torch.Tensor]:
        values = torch.tensor([[comm.rank + 1.0, 10.0], [0.5, 0.0]], dtype=torch.float64).t()  # not contiguous
        sharing = BatchSharing(comm, direct=direct)
        return [sharing.sum(values.requires_grad_()), sharing.sum(2 * values)]  # the second leaves the first alone

    expected = torch.tensor([[6.0, 1.5], [30.0, 0.0]], dtype=torch.float64)
    for first, second in on_ranks(3, work):
        assert torch.equal(first, expected)
        assert torch.equal(second, 2 * expected)
        assert not first.requires_grad


@pytest.mark.parametrize("direct", [False, True], ids=["arrays", "tensors"])
def test_every_rank_gets_what_all_have(direct: bool) -> None:
    def work(comm: ThreadComm) -> list[torch.Tensor]:
        values, sharing = torch.tensor([comm.rank, 7.0], dtype=torch.float64), BatchSharing(comm, direct=direct)
        return [sharing.gather(values), sharing.gather(-values)]

    expected = torch.tensor([[0.0, 7.0], [1.0, 7.0], [2.0, 7.0]], dtype=torch.float64)
    for first, second in on_ranks(3, work):
        assert torch.equal(first, expected)
        assert torch.equal(second, -expected)
    assert BatchSharing().gather(expected[1]).tolist() == [[1.0, 7.0]]


@pytest.mark.parametrize(("ranks", "n"), [(3, 7), (3, 6), (2, 1), (4, 5)])
def test_rows_are_joined_in_their_order(ranks: int, n: int) -> None:
    whole = torch.randn(n, 2, 3)

    def work(comm: ThreadComm) -> torch.Tensor:
        sharing = BatchSharing(comm)
        return sharing.all_gather(whole[sharing.part_of(n)], n)

    for gathered in on_ranks(ranks, work):
        assert torch.equal(gathered, whole)


def test_joined_rows_are_float32_on_the_cpu() -> None:
    def work(comm: ThreadComm) -> torch.Tensor:
        return BatchSharing(comm).all_gather(torch.full((2, 1), 0.5, dtype=torch.bfloat16), 4)

    assert [gathered.dtype for gathered in on_ranks(2, work)] == [torch.float32] * 2


@pytest.mark.parametrize("exact", [True, False])
def test_running_statistics_become_their_mean_where_each_rank_took_its_own(exact: bool) -> None:
    def work(comm: ThreadComm) -> tuple[nn.BatchNorm1d, int]:
        norm = nn.BatchNorm1d(2)
        norm.running_mean.copy_(torch.tensor([1.0, 4.0]) * comm.rank)
        norm.num_batches_tracked.fill_(9)
        BatchSharing(comm, exact=exact).average_buffers(norm)
        return norm, comm.calls

    for rank, (norm, calls) in enumerate(on_ranks(3, work)):
        rank_mean = torch.tensor([1.0, 4.0]) * rank
        assert torch.equal(norm.running_mean, rank_mean if exact else torch.tensor([1.0, 4.0]))
        assert int(norm.num_batches_tracked) == 9
        assert (calls == 0) == exact


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_roots_state_is_broadcast() -> None:
    networks = [network(rank) for rank in range(3)]
    networks[0][1].num_batches_tracked.fill_(17)
    expected = copy.deepcopy(networks[0].state_dict())
    on_ranks(3, lambda comm: broadcast_state(comm, networks[comm.rank]))
    for replica in networks:
        assert all(torch.equal(replica.state_dict()[name], expected[name]) for name in expected)


def test_another_state_than_the_networks_own_is_broadcast() -> None:
    networks, state = [network(rank) for rank in range(2)], network(9).state_dict()
    on_ranks(2, lambda comm: broadcast_state(comm, networks[comm.rank], state if comm.is_root else {}))
    for replica in networks:
        assert all(torch.equal(replica.state_dict()[name], state[name]) for name in state)


def test_a_flag_is_set_anew_at_every_step() -> None:
    wishes = iter([False, True, False])
    flag = Flag(lambda: next(wishes))
    values = []
    for _ in range(3):
        flag.piggybacked()
        values.append(flag.value)
    assert values == [0, 1, 0]


@pytest.mark.parametrize("value", [1.0, 3.0])
def test_a_flag_that_is_set_stops_every_rank(value: float) -> None:
    flag = Flag()
    flag.piggybacked()
    flag.check("local")
    flag.value = value  # how many wished it
    with pytest.raises(StopRequest, match="in phase local") as caught:
        flag.check("local")
    assert caught.value.signum == signal.SIGTERM
