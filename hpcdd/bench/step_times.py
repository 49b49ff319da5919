"""``bench step``: seconds of each kind of training step of a configuration on this machine, messages apart; and a local
CNN's compared with those of a plain PyTorch loop (:mod:`hpcdd.bench.plain_loop`).

Pieces are those of :mod:`hpcdd.plan.workload`, of which a run's steps are sums. They are measured on 1, 2, 4, ... and
all ranks at the same time, since the ranks of a host share its memory, its caches and, where there are more of them
than cores, its cores. A time is that of the slowest rank; all pieces take turns in every round.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..config.schema import CNNTrainingSettings, Config, TrainingSettings
from ..core.devices import use_processor
from ..core.interleaved_timing import quartiles, rotated
from ..data.problem import Problem, build_problem, check_rank
from ..data.reading import BoxReader
from ..data.samples import Samples, SideBySide, Subimages
from ..decomposition import rank_layout
from ..mpi.communicator import Comm
from ..mpi.library import sleep_until
from ..parallel.batch_shards import BatchSharing, Flag
from ..parallel.team import Team, form_team
from ..phases.aggregation import fresh_dnn
from ..phases.coherent import feature_widths
from ..phases.global_cnn import create_global_cnn
from ..phases.local import create_local_cnn
from ..plan.machine import MeasuredStep
from ..plan.machine_file import added, joined, save
from ..plan.memory import ready_bytes
from ..plan.workload import Precision, Work, Workload
from ..training.optimizers import make_optimizer
from ..training.precision import agreed_bf16, check_precisions, resolved
from ..training.steps import PlainSteps
from . import batched_step, plain_loop, single_steps
from .rank_ladder import cores_of_host, ranks_by_host, refuse_spare_ranks, rungs, spread, this_machine

_MOST_SUMMANDS = 8
"""Subdomains of one rank, in the measurement of a head; beyond, its time grows in proportion."""
_MOST_TOGETHER = 16
"""CNNs in the measurement of a training together."""
_ROWS = 4096
"""Samples with random features."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """Work that is measured.

    Attributes:
        work: which.
        step: does it once.
        batches: row numbers, int64 (b,), one for each step of a turn.
    """

    work: Work
    step: single_steps.Step
    batches: Sequence[torch.Tensor]


def run(comm: Comm, config: Config, rounds: int, number: int, output: Path | None) -> None:
    """Called by all ranks; root prints, and writes the machine file.

    Args:
        comm, config: of the job.
        rounds: in which all take a turn.
        number: of steps of a turn.
        output: the machine file; None: none is written.

    Raises:
        UserError: on all ranks, if the configuration does not fit the data set, or ``output`` is no machine file, or
            another machine's.
    """
    problem = comm.on_root(lambda: build_problem(config))
    layout = rank_layout.build(comm, len(problem.decomposition), config.device)
    place = layout.places[comm.rank]
    sections = ["local", *["coherent"] * bool(config.coherent.starts), *["baseline"] * config.baseline.enabled]
    config = resolved(config, agreed_bf16(comm, layout))
    comm.on_all(lambda: check_precisions(config, place.device, sections))
    use_processor(place.threads, layout.neighbours(comm.rank))
    cores = cores_of_host(comm)
    machine = comm.on_root(lambda: joined(this_machine(cores), output))
    team = form_team(comm, layout, config, Flag())
    refuse_spare_ranks(comm, layout)
    comm.on_all(lambda: check_rank(config, problem, place))
    assert team is not None
    runtime_bytes = comm.maximum(ready_bytes(place.device))
    alone = comm.split(comm.rank)
    assert alone is not None
    own = dataclasses.replace(team, across=alone, replicas=alone, workers=alone)
    workload = Workload(config, problem)
    results: list[MeasuredStep] = []
    with contextlib.ExitStack() as stack:
        pieces = make_pieces(own, problem, workload, number, stack)
        for busy in rungs(comm.size):
            group = comm.split(0 if comm.rank < busy else None)
            if group is not None:
                seconds = _measure(group, pieces, rounds, place.device)
                if comm.is_root:
                    on_host = max(ranks_by_host(layout, busy).values())
                    results += [
                        MeasuredStep(
                            **dataclasses.asdict(piece.work),
                            device="cpu" if place.device == "cpu" else torch.cuda.get_device_name(place.device),
                            threads=place.threads,
                            busy=on_host,
                            flops=workload.simulated(piece.work).flops,
                            seconds=quartiles(its),
                            date=datetime.date.today().isoformat(),
                        )
                        for piece, its in zip(pieces, seconds, strict=True)
                    ]
            sleep_until(comm.mpi.Ibarrier().Test)  # the others leave the cores to those who measure
    if comm.is_root:
        _print(results, runtime_bytes)
        _print_beside(own, problem, workload, rounds, number)
    sleep_until(comm.mpi.Ibarrier().Test)
    if comm.is_root:
        machine = added(machine, steps=results, runtime_bytes=runtime_bytes)
    comm.on_root(lambda: None if output is None else save(machine, output))


def make_pieces(
    team: Team, problem: Problem, workload: Workload, number: int, stack: contextlib.ExitStack
) -> list[Piece]:
    """All kinds of work of a configuration.

    Args:
        team: of this rank alone.
        problem: what is to be solved.
        workload: of the same configuration.
        number: of steps of a turn.
        stack: holds what is set up.
    """
    config, device, rows = team.config, team.place.device, problem.samples["train"]
    reader = BoxReader(problem.info.path)
    found: list[Piece] = []

    def add(work: Work, step: single_steps.Step) -> None:
        found.append(Piece(work, step, single_steps.batches(rows, work.batch, number, device)))

    def sizes(*settings: TrainingSettings) -> list[int]:
        """Of whole batches, and of the share of one that each of four replicas would have."""
        whole = {one.batch_of(rows) for one in settings}
        return sorted({*whole, max(2, min(whole) // 4)})

    phases: list[CNNTrainingSettings] = [config.local, *([config.coherent] if config.coherent.starts else [])]
    for s in kinds(problem):
        samples = problem.read(reader, [s], device)[s]["train"]
        for precision in sorted({phase.computed_in for phase in phases}):
            step = single_steps.local(_alone(team, [s], precision), problem, {s: samples}, stack)
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
    if config.coherent.starts:
        most = min(len(problem.decomposition), _MOST_SUMMANDS)
        both = sizes(config.coherent)
        for summands, size in sorted({(1, both[-1]), (most, both[-1]), (1, both[0])}):
            add(workload.head(summands, size), _head(_alone(team, range(summands)), problem))
    return found


def kinds(problem: Problem) -> list[int]:
    """The first subdomain of each shape of subimages."""
    return sorted({problem.subimage_shape(s): s for s in reversed(range(len(problem.decomposition)))}.values())


def _alone(team: Team, subdomains: Sequence[int], precision: Precision | None = None) -> Team:
    """A team whose rank owns some subdomains, and trains their CNNs in some precision."""
    config, place = team.config, dataclasses.replace(team.place, subdomains=tuple(subdomains), replica=0)
    local = config.local.model_copy(update={"precision": precision or config.local.precision})
    return dataclasses.replace(team, place=place, config=config.model_copy(update={"local": local}))


def _evaluation(network: nn.Module, samples: Subimages) -> single_steps.Step:
    network.eval()

    def step(rows: torch.Tensor) -> None:
        with torch.inference_mode():
            network(samples.batch(rows)[0])

    return step


def _global(team: Team, problem: Problem, images: Subimages, stack: contextlib.ExitStack) -> single_steps.Step:
    settings, network = team.config.baseline, create_global_cnn(team, problem).to(team.place.device)
    optimizer = make_optimizer(network, settings)
    training = stack.enter_context(PlainSteps(network.train(), optimizer, BatchSharing(), settings))

    seen = single_steps.as_trained(images, stack)

    def step(rows: torch.Tensor) -> None:
        training.step(seen, rows)

    return step


def _head(team: Team, problem: Problem) -> single_steps.Step:
    """On random features; the part of the DNN that belongs to the team's subdomains."""
    widths, labels = feature_widths(problem, team.config.coherent_features), problem.labels("train")
    network = fresh_dnn(team.config, team, widths, problem.info.num_classes).to(team.place.device).train()
    rows = min(len(labels), _ROWS)
    features = [torch.randn(rows, widths[s]).to(team.place.device) for s in team.place.subdomains]
    samples = SideBySide([Samples(one, labels[:rows].to(team.place.device)) for one in features])
    training = PlainSteps(
        network, make_optimizer(network, team.config.coherent_from("scratch")), BatchSharing(), team.config.aggregation
    )

    def step(batch: torch.Tensor) -> None:
        training.step(samples, batch % rows)

    return step


def _measure(comm: Comm, pieces: Sequence[Piece], rounds: int, device: str) -> list[list[float]]:
    """Seconds per step of each piece in each round, of the slowest rank."""
    seconds: list[list[float]] = [[] for _ in pieces]
    for number in range(-1, rounds):  # the first one warms up
        for piece, its in rotated(list(zip(pieces, seconds, strict=True)), number):
            taken = _timed(comm, piece, device)
            if number >= 0:
                its.append(taken)
    return seconds


def _timed(comm: Comm, piece: Piece, device: str) -> float:
    comm.maximum(0)
    start = time.perf_counter()
    for batch in piece.batches:
        piece.step(batch)
    single_steps.finish(device)
    return comm.maximum(round((time.perf_counter() - start) * 1e9)) / 1e9 / len(piece.batches)


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


def _print_beside(team: Team, problem: Problem, workload: Workload, rounds: int, number: int) -> None:
    """On root, with one rank at work: every kind of local CNN, and a plain loop; batched, and one by one."""
    device, as_stored = team.place.device, dataclasses.replace(problem, augmentation=None)
    size, precision = team.config.local.batch_of(problem.samples["train"]), team.config.local.computed_in
    print(
        "\na local CNN's step in hpcdd's training and in a plain PyTorch loop, interleaved, one rank at work, without\n"
        "views: median (quartiles); and where hpcdd's time goes. Of CNNs of one shape also a step of up to\n"
        f"{_MOST_TOGETHER} together (`--together true`) and one after the other\n"
    )
    for s in kinds(problem):
        samples = as_stored.read(BoxReader(problem.info.path), [s], device)[s]["train"]
        found = plain_loop.compare(team.config, problem, s, samples, device, rounds, number)
        print(f"{workload.local_cnn(s, size, precision).network}, batch {size}\n  {found}", flush=True)
        everyone = range(len(problem.decomposition))
        same = [a for a in everyone if problem.subimage_shape(a) == problem.subimage_shape(s)][:_MOST_TOGETHER]
        if len(same) > 1 and not team.config.model.is_own:
            own = as_stored.read(BoxReader(problem.info.path), same, device)
            trained = {a: splits["train"] for a, splits in own.items()}
            print(f"  {batched_step.compare(_alone(team, same), problem, trained, rounds, number)}", flush=True)
