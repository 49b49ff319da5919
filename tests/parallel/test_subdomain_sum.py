"""The sum over subdomains: exact to its unit, the same bits in any order, and one message."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.core.errors import DivergedError
from hpcdd.mpi import communicator
from hpcdd.parallel.batch_shards import Flag
from hpcdd.parallel.subdomain_sum import SubdomainSum, SumOverSubdomains

from ..thread_ranks import ThreadComm, on_ranks

UNIT = 2.0**-40
KINDS = ["ordered", "fast"]
quickly = settings(max_examples=60)

numbers = st.floats(-256, 256)
rows = st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=1, max_size=12))


@pytest.fixture(scope="module")
def comm() -> communicator.Comm:
    return communicator.world()


def tensors(rows: list[list[float]], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.tensor(row, dtype=dtype) for row in rows]


@given(rows)
@quickly
def test_an_ordered_sum_is_exact_but_for_half_a_unit_of_each_summand(
    comm: communicator.Comm, rows: list[list[float]]
) -> None:
    totals = SubdomainSum(comm, "ordered")(tensors(rows)).tolist()
    for number, column in zip(totals, zip(*rows, strict=True), strict=True):
        exact = sum(map(Fraction, column), Fraction(0))
        assert abs(Fraction(number) - exact) <= len(rows) * Fraction(UNIT) / 2


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=12))
@quickly
def test_an_ordered_sum_of_whole_units_is_exact(comm: communicator.Comm, units: list[int]) -> None:
    total = SubdomainSum(comm, "ordered")(tensors([[unit * UNIT] for unit in units]))
    assert float(total) == sum(units) * UNIT == math.fsum(unit * UNIT for unit in units)


def test_a_float_sum_would_not_be(comm: communicator.Comm) -> None:
    """What the fixed point is for: the order of these summands decides what their float32 sum is."""
    summands = tensors([[1e5], [1.0 + 2**-12], [-1e5]], torch.float32)
    orders = [[0, 1, 2], [0, 2, 1]]
    fast, ordered = (
        [float(SubdomainSum(comm, kind)([summands[i] for i in order])) for order in orders]
        for kind in ("fast", "ordered")
    )
    assert len(set(fast)) == 2
    assert ordered == [1.0 + 2**-12] * 2


@given(rows, st.data())
@quickly
def test_the_bits_depend_neither_on_the_order_nor_on_who_has_which_summand(
    comm: communicator.Comm, rows: list[list[float]], data: st.DataObject
) -> None:
    expected = SubdomainSum(comm, "ordered")(tensors(rows, torch.float32))
    summands = tensors(data.draw(st.permutations(rows)), torch.float32)
    ends = sorted(data.draw(st.sets(st.integers(1, len(rows) - 1), max_size=3))) if len(rows) > 1 else []
    groups = [summands[a:b] for a, b in zip([0, *ends], [*ends, len(rows)], strict=True)]
    for total in on_ranks(len(groups), lambda comm: SubdomainSum(comm, "ordered")(groups[comm.rank])):
        assert torch.equal(total, expected)


def test_a_fast_sum_on_ranks_is_equal_to_rounding() -> None:
    summands = list(torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)))
    groups = [summands[:2], summands[2:3], summands[3:]]
    for total in on_ranks(3, lambda comm: SubdomainSum(comm, "fast")(groups[comm.rank])):
        assert total.dtype == torch.float32
        torch.testing.assert_close(total, torch.stack(summands).sum(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(3,), (4, 7), (2, 1, 3)], ids=str)
def test_shape_and_dtype_are_kept(
    comm: communicator.Comm, shape: tuple[int, ...], dtype: torch.dtype, kind: str
) -> None:
    for count in (1, 2, 5):
        lying = [torch.randn(shape[::-1], dtype=dtype) for _ in range(count)]
        summands = [summand.permute(*reversed(range(len(shape)))) for summand in lying]  # not contiguous
        before = [summand.clone() for summand in summands]
        total = SubdomainSum(comm, kind)(summands)
        assert (total.shape, total.dtype) == (shape, dtype)
        torch.testing.assert_close(total, torch.stack(before).sum(0))
        assert all(torch.equal(now, then) for now, then in zip(summands, before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_over_no_samples_is_empty(comm: communicator.Comm, kind: str) -> None:
    assert SubdomainSum(comm, kind)([torch.empty(0, 4)] * 3).shape == (0, 4)


@pytest.mark.parametrize(("kind", "width"), [("ordered", 8), ("fast", 4)])
def test_one_message_of_one_number_more_than_the_sum_has(kind: str, width: int) -> None:
    comm = communicator.world()
    with comm.phase("step"):
        SubdomainSum(comm, kind)([torch.ones(6, 5) for _ in range(4)])
    assert comm.traffic["step"].calls == 1
    assert comm.traffic["step"].bytes == 2 * (6 * 5 + 1) * width  # sent and received


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 2.0**22, -(2.0**22), 3e38])
def test_what_fixed_point_can_not_hold_has_diverged(wrong: float) -> None:
    comm = communicator.world()
    add, fine = SubdomainSum(comm, "ordered"), torch.zeros(3)
    bad = torch.tensor([0.0, wrong, 1.0])
    with comm.phase("coherent_scratch"):
        for summands in ([bad], [bad, fine], [fine, bad]):
            with pytest.raises(DivergedError, match=r"phase coherent_scratch: a summand .* is (nan|inf|[\d.e+]+);"):
                add(summands)
    assert comm.traffic["coherent_scratch"].calls == 3  # all ranks are to hear of it


def test_all_ranks_hear_of_a_summand_that_can_not_be_added() -> None:
    def add(comm: ThreadComm) -> str:
        summand = torch.full((3,), math.inf if comm.rank == 1 else 1.0)
        with pytest.raises(DivergedError) as caught:
            SubdomainSum(comm, "ordered")([summand])
        return str(caught.value)

    other, of_faulty_rank, _ = on_ranks(3, add)
    assert "a summand of the DNN's first layer is inf;" in of_faulty_rank
    assert "another rank has a summand that is not finite;" in other


def test_in_a_training_all_ranks_hear_of_it_behind_the_step() -> None:
    """The sum is NaN, so that what follows in the step goes its way."""

    def add(comm: ThreadComm) -> tuple[bool, bool]:
        flag = Flag()
        with flag.in_training(lambda: False):
            flag.piggybacked()
            total = SubdomainSum(comm, "ordered", flag)([torch.full((3,), math.inf if comm.rank == 1 else 1.0)])
            with pytest.raises(DivergedError) as caught:
                flag.check_divergence()
        assert (flag.value, flag.reason) == (0.0, None)
        return bool(total.isnan().all()), caught.value.heard

    assert on_ranks(3, add) == [(True, True), (True, False), (True, True)]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_largest_numbers_that_are_taken_do_not_overflow(comm: communicator.Comm, count: int) -> None:
    limit = 2.0**22 / count
    just_below = torch.tensor([math.nextafter(limit, 0), -math.nextafter(limit, 0)], dtype=torch.float64)
    total = SubdomainSum(comm, "ordered")([just_below] * count)
    torch.testing.assert_close(total, count * just_below, rtol=1e-15, atol=0)
    with pytest.raises(DivergedError):
        SubdomainSum(comm, "ordered")([torch.tensor([limit], dtype=torch.float64)] * count)


def test_ranks_have_their_part_of_the_range_each() -> None:
    limit = 2.0**22 / 4

    def work(comm: ThreadComm) -> float:
        return float(SubdomainSum(comm, "ordered")([torch.tensor([limit - 1])]))

    assert on_ranks(4, work) == [4 * (limit - 1)] * 4
    with pytest.raises(DivergedError):
        on_ranks(4, lambda comm: SubdomainSum(comm, "ordered")([torch.tensor([limit])]))


def test_a_fast_sum_takes_any_number(comm: communicator.Comm) -> None:
    total = SubdomainSum(comm, "fast")([torch.tensor([math.nan, math.inf, 3e38])])
    assert total[0].isnan()
    assert total[1:].tolist() == torch.tensor([math.inf, 3e38]).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_flag_rides(kind: str) -> None:
    def work(comm: ThreadComm) -> list[float]:
        wishes = iter([False, comm.rank == 1, False])
        flag, seen = Flag(lambda: next(wishes)), []
        add = SubdomainSum(comm, kind, flag)
        for _ in range(3):
            flag.piggybacked()
            total = add([torch.full((2,), 0.5)])
            assert total.tolist() == [0.5 * comm.size] * 2
            seen.append(flag.value)
        return seen

    assert on_ranks(3, work) == [[0, 1, 0]] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_each_summand_has_the_sums_gradient(comm: communicator.Comm, kind: str) -> None:
    summands = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    add = SubdomainSum(comm, kind)
    assert torch.autograd.gradcheck(lambda *parts: SumOverSubdomains.apply(add, *parts).sin(), summands)
    slope = torch.randn(3, 2, dtype=torch.float64)
    SumOverSubdomains.apply(add, *summands).backward(slope)
    assert all(torch.equal(summand.grad, slope) for summand in summands)


def test_the_backward_pass_sends_nothing() -> None:
    comm = communicator.world()
    summands = [torch.randn(2, 3, requires_grad=True) for _ in range(2)]
    with comm.phase("forward"):
        total = SumOverSubdomains.apply(SubdomainSum(comm, "ordered"), *summands)
    with comm.phase("backward"):
        total.square().sum().backward()
    assert (comm.traffic["forward"].calls, comm.traffic["backward"].calls) == (1, 0)


def test_a_summand_that_needs_no_gradient_gets_none(comm: communicator.Comm) -> None:
    needed, not_needed = torch.ones(2, requires_grad=True), torch.ones(2)
    SumOverSubdomains.apply(SubdomainSum(comm, "ordered"), needed, not_needed).sum().backward()
    assert needed.grad.tolist() == [1, 1]
    assert not_needed.grad is None
