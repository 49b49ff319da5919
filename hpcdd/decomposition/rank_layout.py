"""The map rank -> host -> device -> subdomains, and the threads of each rank."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..core.devices import arithmetic_of, use_device, visible_gpus
from ..core.environment import MOST_THREADS, cpu_quota
from ..core.errors import UserError
from ..mpi.communicator import Comm
from .boxes import split_evenly

DeviceSetting = Literal["auto", "cpu", "cuda"]


def assign(num_subdomains: int, num_ranks: int) -> tuple[tuple[range, int], ...]:
    """The subdomains and the replica number of every rank; pure, the same on every rank.

    With fewer ranks than subdomains each rank owns a balanced block of neighbours, the larger ones last: there is the
    coarse subdomain, the smallest, and root has additional work. With N >= S each subdomain has R = N // S ranks,
    also neighbours, which train copies (replicas) of its CNN; the last N - R S ranks are idle and get an empty range.

    >>> assign(4, 3)
    ((range(0, 1), 0), (range(1, 2), 0), (range(2, 4), 0))
    >>> assign(2, 5)
    ((range(0, 1), 0), (range(0, 1), 1), (range(1, 2), 0), (range(1, 2), 1), (range(2, 2), 0))
    """
    replicas = max(1, num_ranks // num_subdomains)
    larger_first = split_evenly(num_subdomains, min(num_subdomains, num_ranks))
    blocks = [range(num_subdomains - b, num_subdomains - a) for a, b in reversed(larger_first)]
    working = [(block, replica) for block in blocks for replica in range(replicas)]
    return (*working, *[(range(num_subdomains, num_subdomains), 0)] * (num_ranks - len(working)))


@dataclass(frozen=True)
class RankPlacement:
    """The placement of one rank.

    Attributes:
        rank: number of the rank.
        host: name of its host.
        device: ``cpu``, or ``cuda:i`` with the number i that the rank sees.
        device_id: UUID of the GPU, or ``cpu``.
        threads: number of threads of its tensor operations on the CPU.
        subdomains: numbers of the subdomains that it owns, ascending; empty for an idle rank.
        replica: number of its copy of their CNNs, 0 <= replica < R.
        arithmetic: processor or GPU, and number of threads, on which the last bits of its results depend; empty for an
            idle rank.
    """

    rank: int
    host: str
    device: str
    device_id: str
    threads: int
    subdomains: tuple[int, ...]
    replica: int = 0
    arithmetic: str = ""


@dataclass(frozen=True)
class RankLayout:
    """The placements of all ranks, known to every rank.

    Attributes:
        num_subdomains: S.
        placements: one for each rank, in rank order.
    """

    num_subdomains: int
    placements: tuple[RankPlacement, ...]

    def owner(self, subdomain: int) -> int:
        """The rank that owns a subdomain; of several replicas the first."""
        return next(placement.rank for placement in self.placements if subdomain in placement.subdomains)

    @property
    def replicas(self) -> int:
        """R: ranks that train copies of one subdomain's CNN."""
        return 1 + max(placement.replica for placement in self.placements)

    @property
    def owned(self) -> list[tuple[int, ...]]:
        """The subdomains that each rank represents: each subdomain once, by the first of its replicas."""
        return [() if placement.replica else placement.subdomains for placement in self.placements]

    @property
    def hosts(self) -> int:
        """Number of different hosts."""
        return len({placement.host for placement in self.placements})

    def neighbours(self, rank: int) -> int:
        """Number of ranks on a rank's host, itself included."""
        return sum(placement.host == self.placements[rank].host for placement in self.placements)

    def warnings(self) -> list[str]:
        """What the user should know: idle ranks, several ranks on one GPU, processors whose results differ."""
        warnings = []
        if idle := [placement.rank for placement in self.placements if not placement.subdomains]:
            warnings.append(
                f"{len(self.placements)} ranks for {self.num_subdomains} subdomains: rank {_listed(idle)} "
                f"{'is' if len(idle) == 1 else 'are'} idle; "
                f"use a multiple of {self.num_subdomains} ranks"
            )
        users: dict[tuple[str, str], list[int]] = {}
        for placement in self.placements:
            if placement.subdomains and placement.device != "cpu":
                users.setdefault((placement.host, placement.device_id), []).append(placement.rank)
        warnings += [
            f"ranks {_listed(ranks)} share one GPU ({host}, {device}); their kernels run concurrently only under MPS"
            for (host, device), ranks in users.items()
            if len(ranks) > 1
        ]
        if len(kinds := self._ranks_by(lambda placement: placement.arithmetic)) > 1:
            listed = "; ".join(f"rank {_listed(ranks)} on {kind}" for kind, ranks in kinds.items())
            warnings.append(
                f"results differ in their last bits between these processors: {listed}. Copies on several ranks are "
                "made equal after every epoch; another number of ranks gives other last bits"
            )
        return warnings

    def check_devices(self) -> None:
        """Refuses GPUs on some ranks only.

        Raises:
            UserError: naming the ranks of both kinds.
        """
        kinds = self._ranks_by(lambda placement: placement.device.partition(":")[0])
        if len(kinds) > 1:
            hosts = sorted({self.placements[rank].host for rank in kinds["cpu"]})
            raise UserError(
                f"rank {_listed(kinds['cuda'])} would work on a GPU, but rank {_listed(kinds['cpu'])} "
                f"({', '.join(hosts)}) on the CPU, because torch sees no GPU there; all ranks that train must use one "
                "kind of device: use --device cpu, or ask the batch system for GPUs on every host"
            )

    def _ranks_by(self, kind: Callable[[RankPlacement], str]) -> dict[str, list[int]]:
        """The ranks that own subdomains, grouped by a property of their placements."""
        ranks_by_kind: dict[str, list[int]] = {}
        for placement in self.placements:
            if placement.subdomains:
                ranks_by_kind.setdefault(kind(placement), []).append(placement.rank)
        return ranks_by_kind

    def as_list(self) -> list[dict[str, Any]]:
        """The placements as plain data, for environment.json."""
        return [asdict(placement) for placement in self.placements]


def build(comm: Comm, num_subdomains: int, device: DeviceSetting) -> RankLayout:
    """Collective: every rank determines its device and threads, and gets the placements of all ranks.

    Raises:
        UserError: on all ranks, if ``device`` is ``cuda`` and one rank finds no GPU, or ``auto`` and only some find
            one, or OMP_NUM_THREADS is not a number.
    """
    assigned = assign(num_subdomains, comm.size)
    subdomains, replica = assigned[comm.rank]
    node = comm.node_ranks()
    mine = frozenset(os.sched_getaffinity(0))
    masks, quota = comm.allgather_object(mine), cpu_quota()
    working = [rank for rank in node if assigned[rank][0]]

    def find_placement() -> RankPlacement:
        threads = threads_of(mine, [*[masks[rank] for rank in working], *comm.colocated.masks], os.environ, quota)
        gpus = visible_gpus() if subdomains and device != "cpu" else []
        position = sum(1 for rank in working if rank < comm.rank) + comm.colocated.before
        name, device_id = choose_device(device if subdomains else "cpu", position, gpus)
        if name != "cpu":
            use_device(name)
        arithmetic = arithmetic_of(name, threads) if subdomains else ""
        return RankPlacement(
            comm.rank, socket.gethostname(), name, device_id, threads, tuple(subdomains), replica, arithmetic
        )

    layout = RankLayout(num_subdomains, tuple(comm.allgather_object(comm.on_all(find_placement))))
    comm.on_root(layout.check_devices)
    placements = layout.placements
    cores = frozenset().union(*[masks[rank] for rank in working], *comm.colocated.masks)
    others = len(comm.colocated.masks) * placements[comm.rank].threads
    threads = sum(placements[rank].threads for rank in working) + others
    comm.agree_oversubscribed(threads > min(len(cores), quota))
    return layout


def threads_of(
    mine: Collection[int],
    working: Sequence[Collection[int]],
    environment: Mapping[str, str],
    quota: float = math.inf,
) -> int:
    """Threads of one rank: the cores that it may use, shared with the working ranks that may use them too.

    Args:
        mine: numbers of the cores in this rank's affinity mask.
        working: the masks of all ranks on this host that own subdomains.
        environment: a number in its OMP_NUM_THREADS takes precedence.
        quota: number of cores whose time these ranks may use in total, see :func:`hpcdd.core.environment.cpu_quota`.

    Raises:
        UserError: OMP_NUM_THREADS is not a number from 1 to :data:`hpcdd.core.environment.MOST_THREADS`.
    """
    if wish := environment.get("OMP_NUM_THREADS", "").split(",")[0].strip():
        if not wish.isdecimal() or not 1 <= int(wish) <= MOST_THREADS:
            raise UserError(
                f"the environment variable OMP_NUM_THREADS is {wish!r}; set it to a number from 1 to {MOST_THREADS}, "
                "or unset it"
            )
        return int(wish)
    sharing = sum(1 for mask in working if not set(mask).isdisjoint(mine))
    return max(1, int(min(len(mine) // max(1, sharing), quota // max(1, len(working)))))


def choose_device(setting: DeviceSetting, position: int, gpus: Sequence[str]) -> tuple[str, str]:
    """The device of one rank by its position among the working ranks of its host, never by its global rank.

    Args:
        setting: ``device`` of the configuration.
        position: 0 for the first working rank on the host, and so on.
        gpus: UUIDs of the GPUs that this rank's process sees.

    Returns:
        Name for torch, and an identifier that is unique on the host.

    Raises:
        UserError: ``cuda`` without a GPU.
    """
    if setting == "cuda" and not gpus:
        raise UserError(
            f"device is 'cuda', but torch sees no GPU on host {socket.gethostname()}; use --device auto or cpu, "
            "or ask the batch system for GPUs and install a torch build with CUDA"
        )
    if setting == "cpu" or not gpus:
        return "cpu", "cpu"
    index = position % len(gpus)
    return f"cuda:{index}", gpus[index]


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))
