"""``bench collectives``: every collective of hpcdd, compared with a bare mpi4py call and with a model.

Sizes are those of the configuration, on all ranks, and a ladder of sizes on 2, 4, 8, ... and all ranks, for the fit of
:mod:`hpcdd.plan.collective_model`. Before each call a barrier lets all ranks start together; its time is that of the
slowest rank. Both ways are interleaved in every round.
"""

from __future__ import annotations

import datetime
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..artifacts.documents import write_document
from ..config.schema import Config
from ..core.errors import UserError
from ..core.interleaved_timing import quartiles, spread
from ..data.problem import Problem, build_problem
from ..decomposition import rank_layout
from ..decomposition.rank_layout import RankLayout
from ..mpi.communicator import ROOT, Comm
from ..mpi.runtime import library, mpi_library, sleep_until
from ..plan import collective_model, messages
from ..plan.collective_model import COLLECTIVES
from ..plan.machine import FittedCollective, MeasuredCollective
from ..plan.machine_file import added, joined
from .rank_ladder import cores_of_host, ranks_by_host, rungs, this_machine

LADDER = tuple(8 << (3 * k) for k in range(8))
"""Bytes: 8, 64, 512, ... 16 MiB."""
_LADDER_OVERSUBSCRIBED = LADDER[:-1]
_ROUND_SECONDS, _LONG_SECONDS = 0.02, 0.5
_MOST_CALLS, _CALLS_AT_ONCE = 200, 10
Call = Callable[[], object]


def run(comm: Comm, config: Config, rounds: int, output: Path | None) -> None:
    """Called by all ranks; root prints, and writes the machine file.

    Raises:
        UserError: on all ranks, if there is only one, the configuration does not fit the data set, or ``output`` is no
            machine file, or another machine's.
    """
    message = (
        "bench collectives measures messages between ranks, and this job has one rank; start it with "
        "`mpirun -n 2 hpcdd bench collectives`, or with more"
    )
    comm.refuse(UserError(message) if comm.size == 1 else None)
    problem = comm.on_root(lambda: build_problem(config))
    layout = rank_layout.build(comm, len(problem.decomposition), "cpu")
    cores = cores_of_host(comm)
    machine = comm.on_root(lambda: joined(this_machine(cores), output))
    uses = config_uses(config, problem, comm.size)
    measured: list[MeasuredCollective] = []
    for size in list(rungs(comm.size))[1:]:
        group = comm.split(0 if comm.rank < size else None)
        if group is not None:
            by_host = ranks_by_host(layout, size)
            group.agree_oversubscribed(max(by_host.values()) * layout.placements[0].threads > cores)
            ladder = _LADDER_OVERSUBSCRIBED if group.oversubscribed else LADDER
            cases = [*itertools.product(COLLECTIVES, ladder), *(uses if size == comm.size else [])]
            measured += [_measure(group, *case, rounds, len(by_host)) for case in cases]
        sleep_until(comm.mpi.Ibarrier().Test)  # the others leave the cores to those who measure
    if comm.is_root:
        machine = added(machine, collectives=measured)
        _print(comm, layout, uses, measured, machine.fits)
    comm.on_root(lambda: None if output is None else write_document(output, machine))


def config_uses(config: Config, problem: Problem, ranks: int) -> dict[tuple[str, int], str]:
    """The collectives of a run with this configuration: by name and size in bytes what the first is used for.

    Names and sizes are those of :mod:`hpcdd.plan.collective_model`.
    """
    every = [
        *messages.local_step(config, problem, ranks),
        *messages.gather(config, problem, ranks),
        *messages.dnn_step(config, problem, ranks),
        *messages.spread(config, problem, ranks),
        *messages.collect(problem, ranks),
        *(messages.coherent_step(config, problem, ranks) if config.coherent.starts else []),
        *(messages.global_step(config, problem, ranks) if config.baseline.enabled else []),
    ]
    uses: dict[tuple[str, int], str] = {}
    for message in every:
        uses.setdefault((message.collective, message.size), message.what)
    return uses


def _measure(comm: Comm, collective: str, size: int, rounds: int, hosts: int) -> MeasuredCollective:
    ways = dict(zip(("ours", "bare"), _calls(comm, collective, size), strict=True))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    calls = {}
    for name, call in ways.items():  # to warm up, and to see how many calls make a round
        (first,) = _timed(comm, call, 1)
        if first > _LONG_SECONDS:  # bare calls spin where ranks share cores: once is enough of that
            seconds[name] = [first]
            continue
        (second,) = _timed(comm, call, 1)
        calls[name] = int(min(_MOST_CALLS, max(1.0, _ROUND_SECONDS / max(1e-9, second))))
    for number in range(rounds):
        for name in sorted(calls, reverse=bool(number % 2)):  # nobody is always first
            seconds[name].append(statistics.median(_timed(comm, ways[name], calls[name])))
    return MeasuredCollective(
        collective=collective,
        ranks=comm.size,
        hosts=hosts,
        oversubscribed=comm.oversubscribed,
        size=size,
        seconds=quartiles(seconds["ours"]),
        bare=quartiles(seconds["bare"]),
        date=datetime.date.today().isoformat(),
    )


def _timed(comm: Comm, call: Call, number: int) -> list[float]:
    """Seconds of each of some calls, of the slowest rank; the same on every rank.

    There are ``number`` of them, but fewer where others have the cores as well and a round would take for ever.
    """
    seconds: list[float] = []
    begun, over = time.perf_counter(), False
    while len(seconds) < number and not over:
        rank_seconds = np.zeros(min(_CALLS_AT_ONCE, number - len(seconds)) + 1)
        for index in range(len(rank_seconds) - 1):
            _barrier(comm)
            start = time.perf_counter()
            call()
            rank_seconds[index] = time.perf_counter() - start
        rank_seconds[-1] = time.perf_counter() - begun > 2 * _ROUND_SECONDS
        slowest = np.empty_like(rank_seconds)
        comm.mpi.Allreduce(rank_seconds, slowest, op=library().MAX)
        seconds += [float(value) for value in slowest[:-1]]
        over = bool(slowest[-1])
    return seconds


def _barrier(comm: Comm) -> None:
    """Lets all ranks start together; where they have no core each, spinning would keep the last ones from coming."""
    if comm.oversubscribed:
        sleep_until(comm.mpi.Ibarrier().Test, longest=50e-6)
    else:
        comm.mpi.Barrier()


def _calls(comm: Comm, collective: str, size: int) -> tuple[Call, Call]:
    """The calls of hpcdd and of bare mpi4py for a collective, on the same buffers.

    A buffer has ``size`` bytes, or is a rank's part of them: all parts are equal where the collective needs that.
    """
    mpi, counts = comm.mpi, [len(part) for part in np.array_split(np.empty(size, np.uint8), comm.size)]
    part, whole = np.zeros(counts[comm.rank], np.uint8), np.zeros(size, np.uint8)
    in_parts = [whole, counts] if comm.is_root else None
    numbers, result = np.ones(max(1, size // 8), np.int64), np.empty(max(1, size // 8), np.int64)
    equal = np.zeros(max(1, size // comm.size), np.uint8)
    every = np.zeros((comm.size, len(equal)), np.uint8)

    def send() -> None:
        if comm.rank == comm.size - 1:
            mpi.Send(whole, dest=ROOT)
        elif comm.is_root:
            mpi.Recv(whole, source=comm.size - 1)

    calls: dict[str, tuple[Call, Call]] = {
        "allreduce": (lambda: comm.sum(numbers, result), lambda: mpi.Allreduce(numbers, result)),
        "broadcast": (lambda: comm.broadcast(whole), lambda: mpi.Bcast(whole, root=ROOT)),
        "allgather": (lambda: comm.allgather(equal, every), lambda: mpi.Allgather(equal, every)),
        "gather": (lambda: comm.gather(part, counts), lambda: mpi.Gatherv(part, in_parts, root=ROOT)),
        "scatter": (
            lambda: comm.scatter(whole if comm.is_root else None, part, counts),
            lambda: mpi.Scatterv(in_parts, part, root=ROOT),
        ),
        "send": (lambda: comm.to_root(whole, comm.size - 1), send),
    }
    return calls[collective]


def _print(
    comm: Comm,
    layout: RankLayout,
    uses: Mapping[tuple[str, int], str],
    measured: Sequence[MeasuredCollective],
    fits: Sequence[FittedCollective],
) -> None:
    print(
        f"{mpi_library()}; {comm.size} ranks on {layout.hosts} host{'s' if layout.hosts > 1 else ''}, "
        f"{layout.placements[0].threads} thread each{', more than there are cores' if comm.oversubscribed else ''}\n"
        "microseconds of the slowest rank: median (quartiles)\n\n"
        f"{'':<11}{'bytes':>12}{'hpcdd':>32}{'bare mpi4py':>32}{'ratio':>7}{'model':>12}"
    )
    by_key = {(fit.collective, fit.between_hosts, fit.oversubscribed): fit for fit in fits}
    for point in measured:
        if point.ranks == comm.size:
            model = collective_model.seconds(
                by_key[point.collective, point.hosts > 1, point.oversubscribed], point.size, point.ranks
            )
            print(
                f"{point.collective:<11}{point.size:>12,}"
                f"{spread(point.seconds, 1e-6):>32}{spread(point.bare, 1e-6):>32}"
                f"{point.seconds[1] / point.bare[1]:>7.2f}{model * 1e6:>12,.1f}"
                f"  {uses.get((point.collective, point.size), '')}".rstrip()
            )
    print("\nt = alpha A(p) + beta B(n, p), see hpcdd/plan/collective_model.py; error: abs(model / measured - 1)")
    print(f"{'':<11}{'alpha, us':>12}{'1/beta, GB/s':>14}{'typical error':>15}{'largest':>10}{'points':>8}")
    for fit in fits:
        where = ("between hosts, " if fit.between_hosts else "") + (
            "oversubscribed" if fit.oversubscribed else "a core for each"
        )
        speed = f"{1e-9 / fit.seconds_per_byte:,.2f}" if fit.seconds_per_byte else "-"
        print(
            f"{fit.collective:<11}{fit.latency * 1e6:>12,.2f}{speed:>14}{fit.typical_error:>15.0%}"
            f"{fit.largest_error:>10.0%}{fit.points:>8}  {where}",
            flush=True,
        )
