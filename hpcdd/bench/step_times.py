"""``bench step``: seconds of each kind of training step of a configuration on this machine, without messages; and a
local CNN's compared with those of a plain PyTorch loop (:mod:`hpcdd.bench.plain_loop`).

The kinds of work are those of :mod:`hpcdd.plan.workload`, of which a run's steps are sums. They are measured on 1,
2, 4, ... and all ranks at the same time, since the ranks of a host share its memory, its caches and, where there are
more of them than cores, its cores. A time is that of the slowest rank; all kinds are interleaved in every round.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from ..artifacts.documents import write_document
from ..config.schema import CNNTrainingSettings, Config, TrainingSettings
from ..core.interleaved_timing import quartiles, rotated, spread
from ..data.problem import Problem, build_problem
from ..data.reading import BoxReader
from ..data.samples import Samples, SideBySide, Subimages
from ..mpi.communicator import Comm
from ..mpi.runtime import sleep_until
from ..parallel.batch_shards import BatchSharing
from ..parallel.team import Team
from ..phases.aggregation import fresh_dnn
from ..phases.global_cnn import create_global_cnn
from ..phases.local import create_local_cnn
from ..plan.machine import MeasuredStep
from ..plan.machine_file import added, joined
from ..plan.memory import ready_bytes
from ..plan.workload import Precision, Work, Workload
from ..training.checkpoints.manager import NullCheckpointManager
from ..training.optimizers import make_optimizer
from ..training.steps import PlainSteps
from ..training.trainer import Member
from . import plain_loop, single_steps
from .alternating import Alternation, train_alternating
from .rank_ladder import cores_of_host, ranks_by_host, rungs, this_machine, working_team

_MOST_SUMMANDS = 8
"""Subdomains of one rank, in the measurement of a head; beyond, its time grows in proportion."""
_MOST_BATCHED = 16
"""CNNs in the measurement of a batched step."""
_ROWS = 4096
"""Samples with random features."""


@dataclasses.dataclass(frozen=True)
class TimedWork:
    """Work that is measured.

    Attributes:
        work: which.
        step: does it once.
        batches: row numbers, int64 (b,), one for each step of a round.
    """

    work: Work
    step: single_steps.Step
    batches: Sequence[torch.Tensor]


def run(comm: Comm, config: Config, rounds: int, number: int, output: Path | None) -> None:
    """Called by all ranks; root prints, and writes the machine file.

    Args:
        comm, config: of the job.
        rounds: in each of which all are measured.
        number: of steps of each in a round.
        output: the machine file; None: none is written.

    Raises:
        UserError: on all ranks, if the configuration does not fit the data set, or ``output`` is no machine file, or
            another machine's.
    """
    problem = comm.on_root(lambda: build_problem(config))
    sections = ["local", *["coherent"] * bool(config.coherent.starts), *["baseline"] * config.baseline.enabled]
    team = working_team(comm, config, problem, sections)
    placement = team.placement
    cores = cores_of_host(comm)
    machine = comm.on_root(lambda: joined(this_machine(cores), output))
    runtime_bytes = comm.maximum(ready_bytes(placement.device))
    single = comm.split(comm.rank)
    assert single is not None
    team_of_one = dataclasses.replace(team, across=single, replicas=single, workers=single)
    workload = Workload(team.config, problem)
    results: list[MeasuredStep] = []
    with contextlib.ExitStack() as stack:
        timed = make_timed_work(team_of_one, problem, workload, number, stack)
        for busy in rungs(comm.size):
            group = comm.split(0 if comm.rank < busy else None)
            if group is not None:
                seconds = _measure(group, timed, rounds, placement.device)
                if comm.is_root:
                    on_host = max(ranks_by_host(team.layout, busy).values())
                    results += [
                        MeasuredStep(
                            **dataclasses.asdict(one.work),
                            device="cpu" if placement.device == "cpu" else torch.cuda.get_device_name(placement.device),
                            threads=placement.threads,
                            busy=on_host,
                            flops=workload.simulated(one.work).flops,
                            seconds=quartiles(times),
                            date=datetime.date.today().isoformat(),
                        )
                        for one, times in zip(timed, seconds, strict=True)
                    ]
            sleep_until(comm.mpi.Ibarrier().Test)  # the others leave the cores to those who measure
    if comm.is_root:
        _print(results, runtime_bytes)
        _print_comparisons(team_of_one, problem, workload, rounds, number)
    sleep_until(comm.mpi.Ibarrier().Test)
    if comm.is_root:
        machine = added(machine, steps=results, runtime_bytes=runtime_bytes)
    comm.on_root(lambda: None if output is None else write_document(output, machine))


def make_timed_work(
    team: Team, problem: Problem, workload: Workload, number: int, stack: contextlib.ExitStack
) -> list[TimedWork]:
    """All kinds of work of a configuration.

    Args:
        team: of one rank.
        problem: what is to be solved.
        workload: of the same configuration.
        number: of steps of each in a round.
        stack: holds what is set up.
    """
    config, device, rows = team.config, team.placement.device, problem.samples["train"]
    reader = BoxReader(problem.info.path)
    timed: list[TimedWork] = []

    def add(work: Work, step: single_steps.Step) -> None:
        timed.append(TimedWork(work, step, single_steps.batches(rows, work.batch, number, device)))

    def sizes(*settings: TrainingSettings) -> list[int]:
        """Sizes of whole batches, and of the shard of one that each of four replicas would have."""
        whole = {one.batch_of(rows) for one in settings}
        return sorted({*whole, max(2, min(whole) // 4)})

    phases: list[CNNTrainingSettings] = [config.local, *([config.coherent] if config.coherent.starts else [])]
    for s, *_ in problem.by_shape():
        samples = problem.read(reader, [s], device)[s]["train"]
        for precision in sorted({phase.computed_in for phase in phases}):
            step = single_steps.local(_owning(team, [s], precision), problem, {s: samples}, stack)
            for size in sizes(*phases):
                add(workload.local_cnn(s, size, precision), step)
        network = create_local_cnn(
            config, s, problem.subimage_shape(s), problem.info.num_classes, problem.widths.local_width
        )
        for batch in sorted({phase.evaluation_batch for phase in phases}):
            add(workload.local_evaluation(s, batch), _evaluation(network.to(device), samples))
    if config.baseline.enabled:
        images = problem.read_whole(reader, device)["train"]
        for size in sizes(config.baseline):
            add(workload.global_cnn(size), _global(team, problem, images, stack))
        batch = config.baseline.evaluation_batch
        add(workload.global_evaluation(batch), _evaluation(create_global_cnn(team, problem).to(device), images))
    add(workload.dnn(config.aggregation.batch_of(rows)), single_steps.dnn_on_root(team, problem))
    distributed = config.aggregation.placement == "distributed"
    for coherent in [*[False] * distributed, *[True] * bool(config.coherent.starts)]:
        most = min(len(problem.decomposition), _MOST_SUMMANDS)
        both = sizes(config.coherent if coherent else config.aggregation)
        for summands, size in sorted({(1, both[-1]), (most, both[-1]), (1, both[0])}):
            work = workload.head(summands, size, coherent=coherent)
            if work not in [one.work for one in timed]:
                add(work, _head(_owning(team, range(summands)), problem, coherent=coherent))
    return timed


def _owning(team: Team, subdomains: Sequence[int], precision: Precision | None = None) -> Team:
    """A team whose rank owns some subdomains, and trains their CNNs in some precision."""
    config, placement = team.config, dataclasses.replace(team.placement, subdomains=tuple(subdomains), replica=0)
    local = config.local.model_copy(update={"precision": precision or config.local.precision})
    return dataclasses.replace(team, placement=placement, config=config.model_copy(update={"local": local}))


def _evaluation(network: nn.Module, samples: Subimages) -> single_steps.Step:
    network.eval()

    def step(rows: torch.Tensor) -> None:
        with torch.inference_mode():
            network(samples.batch(rows)[0])

    return step


def _global(team: Team, problem: Problem, images: Subimages, stack: contextlib.ExitStack) -> single_steps.Step:
    network = create_global_cnn(team, problem).to(team.placement.device)
    return single_steps.plain_step(network, team.config.baseline, BatchSharing(), images, stack)


def _head(team: Team, problem: Problem, *, coherent: bool) -> single_steps.Step:
    """On random features; the part of the DNN, or of the coherent model's, that belongs to the team's subdomains."""
    config = team.config
    settings = config.coherent_dnn if coherent else config.aggregation
    widths, labels = problem.feature_widths(settings.features), problem.labels("train")
    network = fresh_dnn(team, settings, widths, problem.info.num_classes).to(team.placement.device).train()
    rows = min(len(labels), _ROWS)
    features = [torch.randn(rows, widths[s]).to(team.placement.device) for s in team.placement.subdomains]
    samples = SideBySide([Samples(one, labels[:rows].to(team.placement.device)) for one in features])
    optimizer = make_optimizer(network, config.coherent_from("scratch") if coherent else config.aggregation)
    training = PlainSteps(network, optimizer, BatchSharing(), config.aggregation)
    return lambda batch: training.step(samples, batch % rows)


def _measure(comm: Comm, timed: Sequence[TimedWork], rounds: int, device: str) -> list[list[float]]:
    """Seconds per step of each kind of work in each round, of the slowest rank."""
    seconds: list[list[float]] = [[] for _ in timed]
    for number in range(-1, rounds):  # the first one warms up
        for one, times in rotated(list(zip(timed, seconds, strict=True)), number):
            elapsed = single_steps.timed(comm, one.step, one.batches, device)
            if number >= 0:
                times.append(elapsed)
    return seconds


def _print(results: Sequence[MeasuredStep], runtime_bytes: int) -> None:
    print(
        f"{results[0].device}, {results[0].threads} thread{'s' if results[0].threads > 1 else ''} for each rank; "
        f"a rank that is ready to train takes {runtime_bytes / 2**20:,.0f} MiB\n"
        "milliseconds per step on the slowest rank: median (quartiles); ranks: working ranks per host\n\n"
        f"{'':<11}{'batch':>7}{'summands':>9}{'ranks':>6}{'ms':>28}{'GFLOP':>9}{'GFLOP/s':>9}"
    )
    for step in results:
        print(
            f"{step.kind:<11}{step.batch:>7}{step.summands:>9}{step.busy:>6}{spread(step.seconds, 1e-3):>28}"
            f"{step.flops / 1e9:>9.3f}{step.flops / 1e9 / step.seconds[1]:>9.1f}  {step.network}",
            flush=True,
        )


def _print_comparisons(team: Team, problem: Problem, workload: Workload, rounds: int, number: int) -> None:
    """On root, with one rank at work: every kind of local CNN, and a plain loop; batched, and one by one."""
    device, as_stored = team.placement.device, dataclasses.replace(problem, augmentation=None)
    size, precision = team.config.local.batch_of(problem.samples["train"]), team.config.local.computed_in
    print(
        "\na local CNN's step in hpcdd's training and in a plain PyTorch loop, interleaved, one rank at work, without\n"
        "augmentation: median (quartiles); and where hpcdd's time goes. Of CNNs of one shape also a step of up to\n"
        f"{_MOST_BATCHED} of them batched (`--batched true`) and one after the other\n"
    )
    for group in problem.by_shape():
        s, same = group[0], group[:_MOST_BATCHED]
        samples = as_stored.read(BoxReader(problem.info.path), [s], device)[s]["train"]
        comparison = plain_loop.compare(team.config, problem, s, samples, device, rounds, number)
        print(f"{workload.local_cnn(s, size, precision).network}, batch {size}\n  {comparison}", flush=True)
        if len(same) > 1 and not team.config.model.has_user_factory:
            subimages = as_stored.read(BoxReader(problem.info.path), same, device)
            trained = {a: splits["train"] for a, splits in subimages.items()}
            print(f"  {_batched(_owning(team, same), problem, trained, rounds, number)}", flush=True)


def _batched(team: Team, problem: Problem, samples: Mapping[int, Subimages], rounds: int, number: int) -> str:
    """A line for the user: a step of CNNs of one shape, batched and one after the other, and the ratio."""
    config, device = team.config, team.placement.device
    rows, classes, width = problem.samples["train"], problem.info.num_classes, problem.widths.local_width
    with contextlib.ExitStack() as stack:
        one_by_one = single_steps.local(team, problem, samples, stack)
        (batch,) = single_steps.batches(rows, config.local.batch_of(rows), 1, device)
        alternation = Alternation(number, rounds + 1, lambda: single_steps.finish(device), lambda: one_by_one(batch))
        members = [
            Member(s, create_local_cnn(config, s, x.shape, classes, width).to(device), x, None, NullCheckpointManager())
            for s, x in samples.items()
        ]
        train_alternating(alternation, config, members, batched=True)
    batched, unbatched = alternation.seconds[1:], alternation.others[1:]  # the first one warms up
    ratios = [b / a for a, b in zip(batched, unbatched, strict=True)]
    return (
        f"{len(samples)} of them batched {spread(quartiles(batched), 1e-3)} ms, one after the other "
        f"{spread(quartiles(unbatched), 1e-3)} ms, ratio {spread(quartiles(ratios), digits=2)}"
    )
