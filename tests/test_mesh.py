"""Who does what: pure functions of ranks, masks and GPUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdd import comm
from hpcdd.errors import UserError
from hpcdd.mesh import Mesh, Place, assign, build, choose_device, threads_of


@given(st.integers(1, 300), st.integers(1, 300))
def test_assign_is_a_balanced_partition_in_order_with_spare_ranks_last(subdomains: int, ranks: int) -> None:
    blocks = assign(subdomains, ranks)
    assert len(blocks) == ranks
    assert [s for block in blocks for s in block] == list(range(subdomains))
    sizes = [len(block) for block in blocks]
    assert sizes == sorted(sizes, reverse=True)  # larger blocks first, spare ranks last
    assert max(sizes) - min(sizes) <= 1
    assert assign(subdomains, ranks) == blocks


def place(rank: int, *subdomains: int, host: str = "node1", gpu: str | None = None) -> Place:
    return Place(rank, host, "cpu" if gpu is None else "cuda:0", gpu or "cpu", 1, subdomains)


def test_threads_share_the_cores_that_masks_have_in_common() -> None:
    everything = range(16)
    assert threads_of(everything, [everything] * 4, {}) == 4
    assert threads_of(everything, [everything] * 5, {}) == 3
    assert threads_of(everything, [everything], {}) == 16
    assert threads_of({0, 1}, [{0, 1}] * 4, {}) == 1  # more ranks than cores
    assert threads_of({0, 1}, [], {}) == 2  # a spare rank on a host where none works


def test_bound_ranks_keep_their_own_cores() -> None:
    masks = [set(range(4 * i, 4 * i + 4)) for i in range(4)]
    assert [threads_of(mask, masks, {}) for mask in masks] == [4, 4, 4, 4]
    two_per_socket = [set(range(8))] * 2 + [set(range(8, 16))] * 2
    assert [threads_of(mask, two_per_socket, {}) for mask in two_per_socket] == [4, 4, 4, 4]


@given(st.integers(1, 64), st.integers(1, 64))
def test_ranks_with_one_mask_never_take_more_threads_than_cores(cores: int, ranks: int) -> None:
    threads = threads_of(range(cores), [range(cores)] * ranks, {})
    assert threads >= 1
    assert threads * ranks <= max(cores, ranks)


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("2,1", 2), (" 7 ", 7), ("64", 64), ("", 4), (",2", 4)])
def test_omp_num_threads_wins(value: str, threads: int) -> None:
    assert threads_of(range(4), [range(4)], {"OMP_NUM_THREADS": value}) == threads


@pytest.mark.parametrize("value", ["0", "-2", "many", "1.5", "0x2", "x,2"])
def test_bad_omp_num_threads_is_named(value: str) -> None:
    with pytest.raises(UserError, match="OMP_NUM_THREADS is") as error:
        threads_of(range(4), [range(4)], {"OMP_NUM_THREADS": value})
    assert repr(value.partition(",")[0]) in str(error.value)


def test_gpus_are_dealt_out_by_position_on_the_host() -> None:
    dealt = [choose_device("auto", position, ["GPU-a", "GPU-b"]) for position in range(4)]
    assert dealt == [("cuda:0", "GPU-a"), ("cuda:1", "GPU-b"), ("cuda:0", "GPU-a"), ("cuda:1", "GPU-b")]
    assert choose_device("cuda", 5, ["GPU-x"]) == ("cuda:0", "GPU-x")


def test_cpu_is_taken_where_it_is_asked_for_or_nothing_else_is_there() -> None:
    assert choose_device("cpu", 0, ["GPU-a"]) == ("cpu", "cpu")
    assert choose_device("auto", 3, []) == ("cpu", "cpu")


def test_cuda_without_a_gpu_is_an_error_with_advice() -> None:
    with pytest.raises(UserError, match=r"no GPU on host .*--device auto"):
        choose_device("cuda", 0, [])


def test_owner_and_hosts() -> None:
    mesh = Mesh(5, (place(0, 0, 1), place(1, 2, 3), place(2, 4, host="node2"), place(3, host="node2")))
    assert [mesh.owner(s) for s in range(5)] == [0, 0, 1, 1, 2]
    assert mesh.hosts == 2
    assert mesh.as_list()[1]["subdomains"] == (2, 3)
    with pytest.raises(StopIteration):
        mesh.owner(5)


def test_nothing_to_warn_of() -> None:
    assert Mesh(3, (place(0, 0), place(1, 1), place(2, 2))).warnings() == []
    one_each = (place(0, 0, gpu="a"), place(1, 1, gpu="b"), place(2, 2, gpu="a", host="node2"))
    assert Mesh(3, one_each).warnings() == []


def test_spare_ranks_are_named() -> None:
    (warning,) = Mesh(2, (place(0, 0), place(1, 1), place(2), place(3))).warnings()
    assert "4 ranks for 2 subdomains" in warning
    assert "rank 2, 3 have nothing to do" in warning
    (warning,) = Mesh(1, (place(0, 0), place(1))).warnings()
    assert "rank 1 has nothing to do" in warning


def test_ranks_that_share_a_gpu_are_named_and_spare_ones_are_not() -> None:
    places = (place(0, 0, gpu="a"), place(1, 1, gpu="b"), place(2, 2, gpu="a"), place(3, gpu="b"))
    spare, shared = Mesh(3, places).warnings()
    assert "rank 3" in spare
    assert "ranks 0, 2 share one GPU (node1, a)" in shared


def test_a_mesh_of_one_process() -> None:
    mesh = build(comm.world(), 3, "cpu")
    (only,) = mesh.places
    assert only.subdomains == (0, 1, 2)
    assert (only.device, only.device_id, only.threads) == ("cpu", "cpu", 1)  # conftest sets OMP_NUM_THREADS
    assert mesh.warnings() == []
