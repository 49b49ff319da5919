"""Averaging of gradients: every parameter is in one bucket, and the sum is that of the whole batch."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from hpcdd.mpi import communicator as comm
from hpcdd.parallel import gradient_averaging
from hpcdd.parallel.batch_shards import BatchSharing, Flag
from hpcdd.parallel.gradient_averaging import BUCKETS, GradientAverage, groups

from ..thread_ranks import ThreadComm, on_ranks


class Bare(nn.Module):
    """Parameters of given sizes, without values."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.all = nn.ParameterList(torch.empty(size, device="meta") for size in sizes)


sizes = st.lists(st.one_of(st.integers(1, 100), st.integers(1000, 300_000), st.integers(1, 30_000_000)), min_size=1)


@given(sizes)
def test_groups_hold_every_parameter_once_in_order(sizes: list[int]) -> None:
    parameters = list(Bare(sizes).parameters())
    grouped = groups(parameters)
    assert [id(p) for group in grouped for p in group] == [id(p) for p in parameters]
    assert all(grouped)


@given(sizes)
def test_groups_are_balanced(sizes: list[int]) -> None:
    """None is larger than it should be, but for a single large parameter; no two neighbours could be one."""
    group_sizes = [[p.numel() for p in group] for group in groups(Bare(sizes).parameters())]
    size = min(gradient_averaging._LARGEST, max(gradient_averaging._SMALLEST, sum(sizes) // BUCKETS))
    assert all(sum(group) <= size or len(group) == 1 for group in group_sizes)
    assert all(sum(one) + other[0] > size for one, other in itertools.pairwise(group_sizes))
    if sum(sizes) <= BUCKETS * gradient_averaging._LARGEST:
        assert len(group_sizes) <= 2 * BUCKETS + 1


def test_a_small_network_is_one_group() -> None:
    assert len(groups(Bare([9 * 16 * 3, 16, 160, 10]).parameters())) == 1


def test_where_nobody_shares_nothing_happens() -> None:
    world = comm.world()
    for sharing in (BatchSharing(), BatchSharing(world)):
        network = nn.Linear(3, 2)
        network(torch.ones(4, 3)).sum().backward()
        before = copy.deepcopy([p.grad for p in network.parameters()])
        with GradientAverage(network, sharing, [network.bias]) as average:
            network.zero_grad()
            network(torch.ones(4, 3)).sum().backward()
            average.finish()
        assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), before, strict=True))
    assert world.traffic == {}


INPUTS, LABELS = torch.randn(7, 3, dtype=torch.float64), torch.arange(7) % 2


class Network(nn.Module):
    """A frozen layer and one that is never used among others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.idle = nn.Linear(4, 4)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.last = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.frozen(self.first(x).tanh()))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network().double()


def step(network: nn.Module, sharing: BatchSharing, average: GradientAverage) -> None:
    shard = sharing.shard(torch.arange(7))
    rows = shard.samples
    network.zero_grad(set_to_none=True)
    (functional.cross_entropy(network(INPUTS[rows]), LABELS[rows]) * shard.weight).backward()
    average.finish()


@pytest.mark.parametrize("direct", [False, True], ids=["arrays", "tensors"])
@pytest.mark.parametrize("replicated", [False, True])
@pytest.mark.parametrize("smallest", [1, gradient_averaging._SMALLEST], ids=["many buckets", "one bucket"])
def test_shares_of_a_batch_give_the_whole_batchs_gradients(
    network: Network, smallest: int, replicated: bool, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_averaging, "_SMALLEST", smallest)
    functional.cross_entropy(network(INPUTS), LABELS).backward()
    expected = {name: p.grad for name, p in network.named_parameters()}
    assert expected["idle.weight"] is None

    def work(comm: ThreadComm) -> tuple[nn.Module, int]:
        replica, sharing = copy.deepcopy(network), BatchSharing(comm, direct=direct)
        with GradientAverage(replica, sharing, replica.last.parameters() if replicated else ()) as average:
            for _ in range(2):  # buckets are used again
                step(replica, sharing, average)
        return replica, comm.calls

    results = on_ranks(3, work)
    for replica, calls in results:
        for name, parameter in replica.named_parameters():
            if name.startswith(("idle", "frozen")):
                assert parameter.grad is None, name
            else:
                torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-12, atol=1e-14)
        if smallest > 1:
            assert calls == 2 * (1 + replicated)
        else:
            assert calls > 2 * (1 + replicated)
    first, *others = [replica for replica, _ in results]
    for replica in others:
        for one, other in zip(first.parameters(), replica.parameters(), strict=True):
            assert one.grad is None or torch.equal(one.grad, other.grad)


def test_afterwards_the_hooks_are_gone(network: Network) -> None:
    def work(comm: ThreadComm) -> tuple[int, int]:
        replica, sharing = copy.deepcopy(network), BatchSharing(comm)
        with GradientAverage(replica, sharing) as average:
            step(replica, sharing, average)
        calls = comm.calls
        replica(INPUTS).sum().backward()
        return calls, comm.calls

    assert on_ranks(2, work) == [(1, 1), (1, 1)]


@pytest.mark.parametrize("direct", [False, True], ids=["arrays", "tensors"])
@pytest.mark.parametrize("smallest", [1, gradient_averaging._SMALLEST], ids=["many buckets", "one bucket"])
def test_a_wish_of_one_rank_reaches_all_with_the_gradients(
    network: Network, smallest: int, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_averaging, "_SMALLEST", smallest)

    def work(comm: ThreadComm) -> list[float]:
        wishes, values = iter([False, comm.rank == 2, False]), []
        replica, flag = copy.deepcopy(network), Flag(lambda: next(wishes))
        sharing = BatchSharing(comm, flag, direct=direct)
        with GradientAverage(replica, sharing) as average:
            for _ in range(3):
                flag.piggybacked()
                step(replica, sharing, average)
                values.append(flag.value)
        return values

    assert on_ranks(3, work) == [[0, 1, 0]] * 3


def test_a_wish_that_the_forward_pass_has_brought_is_passed_on(network: Network) -> None:
    """The flag is first sent in the reduction's message; what it says then must not be lost."""

    def work(comm: ThreadComm) -> float:
        replica, flag = copy.deepcopy(network), Flag()
        sharing = BatchSharing(comm, flag)
        with GradientAverage(replica, sharing) as average:
            flag.piggybacked()
            flag.value += comm.rank == 0  # a reduction among other ranks
            step(replica, sharing, average)
        return flag.value

    assert on_ranks(2, work) == [1, 1]
