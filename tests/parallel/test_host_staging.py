"""Messages through the host's memory and without it: the same numbers, and nobody reads what is still being written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from hpcdd.config.schema import Config
from hpcdd.config.sections import CommSettings
from hpcdd.core.errors import DivergedError, UserError
from hpcdd.decomposition import rank_layout
from hpcdd.mpi import runtime
from hpcdd.mpi.communicator import Comm, world
from hpcdd.parallel import host_staging as staging
from hpcdd.parallel.batch_shards import BatchSharing, Flag
from hpcdd.parallel.gradient_averaging import GradientAverage
from hpcdd.parallel.host_staging import Staging, check_gpu_aware, seconds_of_copies
from hpcdd.parallel.shared_layers import shared_layers
from hpcdd.parallel.subdomain_sum import SubdomainSum
from hpcdd.parallel.team import form_team
from hpcdd.runs.resume import differences
from hpcdd.runs.run_directory import RunDirectory

from ..thread_ranks import ThreadComm, on_ranks
from ..waiting import LIMIT

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


class Stream:
    """A GPU's stream that counts who waits for it."""

    waited = 0

    def synchronize(self) -> None:
        Stream.waited += 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as staging sees one: its pinned memory is plain memory."""
    Stream.waited = 0
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: Stream())
    monkeypatch.setattr(staging, "_pinned", lambda size, dtype: torch.empty(size, dtype=dtype))


@pytest.mark.usefixtures("gpu")
def test_pinned_buffers_are_given_out_again_and_a_gpu_is_waited_for() -> None:
    buffers = Staging()
    first, again = buffers.pair(5, torch.int64, GPU), buffers.pair(5, torch.int64, GPU)
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert first[0] is not first[1]
    assert buffers.pair(6, torch.int64, GPU)[0] is not first[0]
    assert buffers.pair(5, torch.float32, GPU)[0].dtype == torch.float32
    buffers.ready(CPU)
    assert Stream.waited == 0
    buffers.ready(GPU)
    assert Stream.waited == 1


def test_on_a_cpu_every_message_has_its_own_memory() -> None:
    """What a step has received may still be read when the next one is sent."""
    buffers = Staging()
    assert buffers.pair(5, torch.int64, CPU)[1] is not buffers.pair(5, torch.int64, CPU)[1]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("kind", ["ordered", "fast"])
def test_a_gpu_is_waited_for_once_in_a_step(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    ready = Staging.ready
    monkeypatch.setattr(Staging, "ready", lambda self, _device: ready(self, GPU))
    total = SubdomainSum(world(), kind)([torch.ones(3, 2), torch.ones(3, 2)])
    assert torch.equal(total, torch.full((3, 2), 2.0))
    assert Stream.waited == 1


class Recording(Comm):
    """Notes what MPI gets."""

    taken: list[type]

    def sum(self, values: Any, result: Any) -> None:
        self.taken.append(type(values))
        super().sum(values, result)

    def start_sum(self, values: Any, result: Any) -> Any:
        self.taken.append(type(values))
        return super().start_sum(values, result)


def recording() -> Recording:
    comm = Recording(world().mpi)
    comm.taken = []
    return comm


@pytest.mark.parametrize("kind", ["ordered", "fast"])
def test_the_devices_own_memory_gives_the_same_sum(kind: Any) -> None:
    """MPI takes torch's tensors as they are; on a GPU it is the same call."""
    summands = [torch.randn(7, 5), torch.randn(7, 5)]
    comm, flag = recording(), Flag(lambda: True)
    flag.piggybacked()
    direct = SubdomainSum(comm, kind, flag, Staging(direct=True))(summands)
    assert torch.equal(direct, SubdomainSum(world(), kind)(summands))
    assert set(comm.taken) == {torch.Tensor}
    assert flag.value == 1


def test_a_summand_that_cannot_be_added_is_told_either_way() -> None:
    for direct in (False, True):
        for value, said in ((float("nan"), "nan"), (float("inf"), "inf"), (1e9, "1000000000")):
            with pytest.raises(DivergedError, match=f"first layer is {said}"):
                SubdomainSum(world(), "ordered", staging=Staging(direct=direct))([torch.tensor([1.0, -value])])


@pytest.mark.parametrize("direct", [False, True])
def test_gradients_are_averaged_from_where_they_are(direct: bool) -> None:
    networks = [nn.Linear(3, 2) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    taken: list[type] = []

    class Recording:
        """Notes what MPI gets."""

        def __init__(self, comm: ThreadComm) -> None:
            self.comm = comm

        def __getattr__(self, name: str) -> Any:
            call = getattr(self.comm, name)
            if name not in ("sum", "start_sum"):
                return call
            return lambda values, result: (taken.append(type(values)), call(values, result))[1]

    def step(comm: ThreadComm) -> None:
        sharing, network = BatchSharing(Recording(comm), Flag(), direct=direct), networks[comm.rank]  # type: ignore[arg-type]
        with GradientAverage(network, sharing) as gradients:
            weight = sharing.shard(torch.arange(4)).weight
            (network(torch.full((2, 3), float(comm.rank))).sum() * weight).backward()
            gradients.finish()

    on_ranks(2, step)
    for network in networks:
        assert network.weight.grad is not None
        assert torch.equal(network.weight.grad, torch.full((2, 3), 1.0))
        assert network.bias.grad is not None
        assert torch.equal(network.bias.grad, torch.full((2,), 2.0))
    assert {issubclass(kind, torch.Tensor) for kind in taken} == {direct}


class BlockingCalls:
    """An MPI communicator of one rank that knows those only."""

    size = 1

    def Get_rank(self) -> int:  # noqa: N802
        return 0

    def Get_size(self) -> int:  # noqa: N802
        return 1

    def Allreduce(self, values: torch.Tensor, result: torch.Tensor) -> None:  # noqa: N802
        result[...] = values

    Allgather = Allreduce


def test_tensors_are_sent_by_blocking_calls_on_crowded_hosts_too() -> None:
    """MPI libraries know no others for a reduction in a GPU's memory; on arrays they would sleep."""
    comm = Comm(BlockingCalls(), oversubscribed=True)  # type: ignore[arg-type]
    received = torch.empty(3)
    comm.sum(torch.ones(3), received)
    assert received.tolist() == [1.0, 1.0, 1.0]
    comm.allgather(torch.zeros(3), received)
    assert received.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(AttributeError, match="Iallreduce"):
        comm.sum(np.ones(3), np.empty(3))
    with pytest.raises(AttributeError, match="Iallgather"):
        comm.allgather(np.ones(3), np.empty(3))


def test_ranks_with_cores_of_their_own_do_not_sleep_in_a_step() -> None:
    """Their collectives are blocking calls, which this communicator alone has."""
    comm = Comm(BlockingCalls(), oversubscribed=False)  # type: ignore[arg-type]
    received = torch.empty(3)
    comm.allgather(torch.zeros(3).numpy(), received.numpy())
    comm.sum(torch.ones(3).numpy(), received.numpy())


@pytest.mark.usefixtures("gpu")
def test_batch_norm_of_shared_batches_waits_for_a_gpu_once_for_each_message(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Staging.ready
    monkeypatch.setattr(Staging, "ready", lambda self, _device: ready(self, GPU))
    sharing = BatchSharing()
    sharing.comm = world()  # one rank, as if there were more
    norm = nn.BatchNorm1d(3)
    with shared_layers(norm, sharing) as context, context.of(sharing.shard(torch.arange(4))):
        norm(torch.randn(4, 3, requires_grad=True)).sum().backward()
    assert Stream.waited == 2


def test_no_team_is_formed_where_gpu_awareness_cannot_work() -> None:
    config = Config(comm=CommSettings(gpu_aware=True))
    comm = world()
    with pytest.raises(UserError, match=r"on the CPU, where it has no effect; leave it out \(rank 0\)"):
        form_team(comm, rank_layout.build(comm, 2, "cpu"), config, Flag())


def test_a_device_that_is_no_gpu_and_gpu_awareness_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="comm.gpu_aware has no effect on device 'cpu'"):
        Config(device="cpu", comm=CommSettings(gpu_aware=True))


def test_gpu_awareness_may_change_when_a_run_is_gone_on_with(tmp_path: Path) -> None:
    """Another cluster's MPI library may have no CUDA."""
    before = Config(comm=CommSettings(gpu_aware=True))
    assert list(differences(before, Config(), RunDirectory(tmp_path))) == []
    assert list(differences(before, Config(reduction="fast"), RunDirectory(tmp_path)))


def test_gpu_awareness_is_refused_where_it_cannot_work() -> None:
    with pytest.raises(UserError, match="on the CPU, where it has no effect"):
        check_gpu_aware("cpu", lambda: True)
    with pytest.raises(UserError, match="built without CUDA"):
        check_gpu_aware("cuda:0", lambda: False)
    check_gpu_aware("cuda:0", lambda: True)
    check_gpu_aware("cuda:0", lambda: None)  # a library that does not say


def test_these_mpi_libraries_say_that_they_were_built_without_cuda() -> None:
    world()
    assert runtime.takes_gpu_memory() is False


@pytest.mark.usefixtures("gpu")
def test_what_the_copies_of_a_message_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Down and up again, each as often, behind what the device was asked to do before."""
    ready = Staging.ready
    monkeypatch.setattr(Staging, "ready", lambda self, _device: ready(self, GPU))
    assert 0 < seconds_of_copies(Staging(), 1000, torch.int64, CPU, number=7) < LIMIT
    assert Stream.waited == 2 * 7 + 1
