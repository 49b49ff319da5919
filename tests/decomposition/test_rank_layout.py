"""Which rank owns what: pure functions of ranks, masks and GPUs."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdd.core.environment import ColocatedRanks
from hpcdd.core.errors import UserError
from hpcdd.decomposition import rank_layout
from hpcdd.decomposition.rank_layout import RankLayout, RankPlacement, assign, build, choose_device, threads_of
from hpcdd.mpi import communicator


@given(st.integers(1, 300), st.integers(1, 300))
def test_assign_with_fewer_ranks_than_subdomains_is_a_balanced_partition_in_order(one: int, other: int) -> None:
    ranks, subdomains = sorted((one, other))
    assigned = assign(subdomains, ranks)
    assert len(assigned) == ranks
    if ranks < subdomains:
        assert {replica for _, replica in assigned} == {0}
    blocks = [block for block, replica in assigned if replica == 0 and block]
    assert [s for block in blocks for s in block] == list(range(subdomains))
    sizes = [len(block) for block in blocks]
    assert sizes == sorted(sizes)  # larger blocks last
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 60), st.integers(0, 300))
def test_assign_with_more_ranks_gives_each_subdomain_as_many_neighbours(subdomains: int, more: int) -> None:
    ranks = subdomains + more
    assigned = assign(subdomains, ranks)
    assert len(assigned) == ranks
    replicas = ranks // subdomains
    working = [(*block, replica) for block, replica in assigned if block]
    assert working == [(s, replica) for s in range(subdomains) for replica in range(replicas)]
    idle = assigned[len(working) :]
    assert len(idle) == ranks - replicas * subdomains < subdomains
    assert all(not block and replica == 0 for block, replica in idle)  # idle ranks last


def placement(
    rank: int, *subdomains: int, host: str = "node1", gpu: str | None = None, replica: int = 0
) -> RankPlacement:
    return RankPlacement(rank, host, "cpu" if gpu is None else "cuda:0", gpu or "cpu", 1, subdomains, replica)


@given(st.integers(1, 40), st.integers(1, 200))
def test_a_layout_of_what_was_assigned(subdomains: int, ranks: int) -> None:
    assigned = assign(subdomains, ranks)
    layout = RankLayout(
        subdomains, tuple(placement(r, *block, replica=replica) for r, (block, replica) in enumerate(assigned))
    )
    assert layout.replicas == max(1, ranks // subdomains)
    assert [s for owned in layout.owned for s in owned] == list(range(subdomains)), "in rank order, each once"
    for s in range(subdomains):
        owner = layout.owner(s)
        assert s in layout.owned[owner]
        assert layout.placements[owner].replica == 0
        assert all(s not in one.subdomains for one in layout.placements[:owner])
    assert layout.owner(0) == 0, "root works"
    named = [warning for warning in layout.warnings() if " idle; " in warning]
    assert len(named) == (ranks > subdomains and ranks % subdomains > 0)


def test_threads_share_the_cores_that_masks_have_in_common() -> None:
    everything = range(16)
    assert threads_of(everything, [everything] * 4, {}) == 4
    assert threads_of(everything, [everything] * 5, {}) == 3
    assert threads_of(everything, [everything], {}) == 16
    assert threads_of({0, 1}, [{0, 1}] * 4, {}) == 1  # more ranks than cores
    assert threads_of({0, 1}, [], {}) == 2  # an idle rank on a host where none works


def test_bound_ranks_keep_their_own_cores() -> None:
    masks = [set(range(4 * i, 4 * i + 4)) for i in range(4)]
    assert [threads_of(mask, masks, {}) for mask in masks] == [4, 4, 4, 4]
    two_per_socket = [set(range(8))] * 2 + [set(range(8, 16))] * 2
    assert [threads_of(mask, two_per_socket, {}) for mask in two_per_socket] == [4, 4, 4, 4]


def test_ranks_share_a_quota_of_their_control_group() -> None:
    cores = range(16)
    assert threads_of(cores, [cores] * 2, {}, quota=4.0) == 2
    assert threads_of(cores, [cores], {}, quota=2.9) == 2
    assert threads_of(cores, [cores] * 4, {}, quota=1.5) == 1
    assert threads_of(cores, [cores] * 4, {}, quota=64.0) == 4
    assert threads_of({0}, [{0}, {1}], {}, quota=8.0) == 1
    assert threads_of(cores, [cores], {"OMP_NUM_THREADS": "3"}, quota=2.0) == 3


@given(st.integers(1, 64), st.integers(1, 64))
def test_ranks_with_one_mask_never_take_more_threads_than_cores(cores: int, ranks: int) -> None:
    threads = threads_of(range(cores), [range(cores)] * ranks, {})
    assert threads >= 1
    assert threads * ranks <= max(cores, ranks)


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("2,1", 2), (" 7 ", 7), ("64", 64), ("", 4), (",2", 4)])
def test_omp_num_threads_takes_precedence(value: str, threads: int) -> None:
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


def test_cpu_is_used_if_configured_or_without_a_gpu() -> None:
    assert choose_device("cpu", 0, ["GPU-a"]) == ("cpu", "cpu")
    assert choose_device("auto", 3, []) == ("cpu", "cpu")


def test_cuda_without_a_gpu_is_an_error_with_advice() -> None:
    with pytest.raises(UserError, match=r"no GPU on host .*--device auto"):
        choose_device("cuda", 0, [])


def test_owner_and_hosts() -> None:
    layout = RankLayout(
        5, (placement(0, 0, 1), placement(1, 2, 3), placement(2, 4, host="node2"), placement(3, host="node2"))
    )
    assert [layout.owner(s) for s in range(5)] == [0, 0, 1, 1, 2]
    assert layout.hosts == 2
    assert layout.as_list()[1]["subdomains"] == (2, 3)
    with pytest.raises(StopIteration):
        layout.owner(5)


def test_replicas_of_two_subdomains() -> None:
    replicas = [placement(2 * s + r, s, replica=r, host=f"node{r}") for s in range(2) for r in range(2)]
    layout = RankLayout(2, (*replicas, placement(4)))
    assert [layout.owner(s) for s in range(2)] == [0, 2]
    assert layout.owned == [(0,), (), (1,), (), ()]
    assert layout.replicas == 2
    assert [one["replica"] for one in layout.as_list()] == [0, 1, 0, 1, 0]
    (warning,) = layout.warnings()
    assert "5 ranks for 2 subdomains: rank 4 is idle" in warning
    assert warning.endswith("use a multiple of 2 ranks")
    assert RankLayout(2, tuple(replicas)).warnings() == []


def test_nothing_to_warn_of() -> None:
    assert RankLayout(3, (placement(0, 0), placement(1, 1), placement(2, 2))).warnings() == []
    one_each = (placement(0, 0, gpu="a"), placement(1, 1, gpu="b"), placement(2, 2, gpu="a", host="node2"))
    assert RankLayout(3, one_each).warnings() == []


def test_idle_ranks_are_named() -> None:
    (warning,) = RankLayout(2, (placement(0, 0), placement(1, 1), placement(2), placement(3))).warnings()
    assert "4 ranks for 2 subdomains" in warning
    assert "rank 2, 3 are idle; use a multiple of 2 ranks" in warning
    (warning,) = RankLayout(1, (placement(0, 0), placement(1))).warnings()
    assert "rank 1 is idle" in warning


def test_ranks_that_share_a_gpu_are_named_and_idle_ones_are_not() -> None:
    placements = (placement(0, 0, gpu="a"), placement(1, 1, gpu="b"), placement(2, 2, gpu="a"), placement(3, gpu="b"))
    idle, shared = RankLayout(3, placements).warnings()
    assert "rank 3" in idle
    assert "ranks 0, 2 share one GPU (node1, a)" in shared


def test_replicas_that_share_a_gpu_are_named() -> None:
    placements = tuple(placement(2 * s + r, s, replica=r, gpu="ab"[r]) for s in range(2) for r in range(2))
    assert [warning[:30] for warning in RankLayout(2, placements).warnings()] == [
        "ranks 0, 2 share one GPU (node",
        "ranks 1, 3 share one GPU (node",
    ]


def test_gpus_on_some_ranks_only_are_refused_with_the_ranks_and_the_remedy() -> None:
    mixed = RankLayout(
        3, (placement(0, 0, gpu="a"), placement(1, 1, host="node2"), placement(2, 2, gpu="b"), placement(3))
    )
    with pytest.raises(UserError) as error:
        mixed.check_devices()
    assert "rank 0, 2 would work on a GPU, but rank 1 (node2) on the CPU" in str(error.value)
    assert "--device cpu" in str(error.value)


@pytest.mark.parametrize("gpu", [None, "a"])
def test_one_kind_of_device_is_fine_and_idle_ranks_do_not_count(gpu: str | None) -> None:
    RankLayout(2, (placement(0, 0, gpu=gpu), placement(1, 1, gpu=gpu), placement(2))).check_devices()


def test_processors_whose_results_differ_are_named() -> None:
    kinds = ["old, 1 thread", "old, 1 thread", "new, 1 thread", ""]
    placements = [replace(placement(r, *([r] if r < 3 else [])), arithmetic=kind) for r, kind in enumerate(kinds)]
    warnings = RankLayout(3, tuple(placements)).warnings()
    assert "rank 0, 1 on old, 1 thread; rank 2 on new, 1 thread" in warnings[-1]
    assert not [text for text in RankLayout(2, tuple(placements[:2])).warnings() if "last bits" in text]


def test_a_rank_without_a_gpu_among_others_is_found_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    world = communicator.world()
    other = placement(1, 1, gpu="a")
    monkeypatch.setattr(
        world, "allgather_object", lambda sent: [sent, other] if isinstance(sent, RankPlacement) else [sent]
    )
    with pytest.raises(UserError, match="rank 1 would work on a GPU, but rank 0"):
        build(world, 2, "auto")


def test_the_layout_of_one_process() -> None:
    world = communicator.world()
    assert world.oversubscribed, "no rank spins before the layout is known"
    layout = build(world, 3, "cpu")
    (only,) = layout.placements
    assert (only.subdomains, only.replica, layout.replicas) == ((0, 1, 2), 0, 1)
    assert layout.num_subdomains == 3
    assert not world.oversubscribed
    assert (only.device, only.device_id, only.threads) == ("cpu", "cpu", 1)  # conftest sets OMP_NUM_THREADS
    assert layout.warnings() == []


def test_more_threads_than_cores_oversubscribe_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    for threads, oversubscribed in ((cores, False), (cores + 1, True)):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        world = communicator.world()
        assert build(world, 3, "cpu").placements[0].threads == threads
        assert world.oversubscribed == oversubscribed


def test_ranks_of_other_groups_on_a_host_use_some_of_its_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    world, cores = communicator.world(), frozenset({0, 1, 2, 3})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    monkeypatch.setattr(rank_layout, "visible_gpus", lambda: ["a", "b", "c", "d"])
    used: list[str] = []
    monkeypatch.setattr(rank_layout, "use_device", used.append)
    monkeypatch.setattr(rank_layout, "arithmetic_of", lambda device, _: device)
    monkeypatch.delenv("OMP_NUM_THREADS")
    (single,) = build(world, 3, "auto").placements
    assert (single.threads, single.device) == (4, "cuda:0")
    assert not world.oversubscribed
    group = world.split(0, ColocatedRanks((cores, cores, frozenset({7})), before=2))
    assert group is not None
    (one_of_three,) = build(group, 3, "auto").placements
    assert (one_of_three.threads, one_of_three.device) == (1, "cuda:2")
    assert not group.oversubscribed
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    build(group, 3, "auto")
    assert group.oversubscribed  # eight threads on five cores
    assert used == ["cuda:0", "cuda:2", "cuda:2"]  # the process's own from then on
