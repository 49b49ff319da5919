"""``hpcdd plan``: everything that can be known of a run before it starts, printed for people."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TextIO

import torch

from ..artifacts import summary
from ..config.schema import Config
from ..core import environment
from ..core.errors import UserError
from ..core.files import atomic_write, writing
from ..data.prepare import contact_sheet
from ..data.problem import Problem, build_problem, check_shards
from ..data.sample_loading import Where
from ..data.sample_storage import bytes_needed, choose
from ..decomposition.boxes import by
from ..decomposition.rank_layout import RankLayout, RankPlacement, assign, threads_of
from ..models.registry import check_consent
from ..training.precision import native_bf16, resolved
from . import machine_file, plan_tables
from .clock import Clock
from .cost import PlannedCosts
from .machine import Machine
from .memory import Memories, Memory, runtime_bytes
from .workload import Workload


def run(
    config: Config,
    ranks: int,
    *,
    machine: Path | None = None,
    ranks_per_host: int | None = None,
    threads: int | None = None,
    user_factory: str | None = None,
    picture: Path | None = None,
    out: TextIO = sys.stdout,
) -> None:
    """Prints the plan.

    Args:
        config: of the run.
        ranks: N.
        machine: machine file, for seconds.
        ranks_per_host, threads: see :func:`layout_of`.
        user_factory: the user's factory that may be called, see :func:`hpcdd.models.registry.check_consent`.
        picture: PNG to draw of the boxes.
        out: where to print.

    Raises:
        UserError: the configuration, the data set or the machine file is wrong.
        WriteError: the picture can't be written.
    """
    measured = None if machine is None else machine_file.load(machine)
    check_consent(config.model, user_factory)
    config = resolved_for(config, measured)
    problem = build_problem(config)
    layout = layout_of(config, problem, measured, ranks, ranks_per_host, threads)
    check_shards(config, problem, layout)
    torch.set_num_threads(layout.placements[0].threads)
    ready = runtime_bytes(measured)  # before anything else is loaded
    summary.print_problem(problem, out)
    for warning in layout.warnings():
        print(f"warning: {warning}", file=out)
    plan_tables.print_boxes(problem, layout, out)
    workload = Workload(config, problem)
    memories = memories_of(workload, layout, measured, ready)
    budget = _describe_budget(config, layout, measured)
    known = measured is not None and measured.runtime_bytes is not None
    plan_tables.print_memory(layout, memories, out, measured=known, budget=budget)
    plan_tables.print_messages(config, problem, ranks, out)
    if measured is None:
        print(
            "\nNo times without a machine file. Make one on the target machine, with as many ranks as each "
            "of its hosts will have (and on several hosts, for the messages between them):"
            "\n"
            "  mpirun -n N hpcdd bench step [CONFIG] --output machine.json\n"
            "  mpirun -n N hpcdd bench collectives [CONFIG] --output machine.json\n"
            f"  hpcdd plan [CONFIG] -n {ranks} --machine machine.json",
            file=out,
        )
    else:
        placement = layout.placements[0]
        clock = Clock(measured, workload, placement.threads, most_on_a_host(layout), placement.device_id)
        plan_tables.print_times(PlannedCosts(clock), ranks, out)
    if picture is not None:
        draw(problem, layout, picture)
        print(f"\nboxes on a sample image: {picture}", file=out)
    out.flush()


def resolved_for(config: Config, machine: Machine | None) -> Config:
    """The configuration with the precisions of a machine, or of this one, in the place of ``auto``."""
    return resolved(config, native_bf16("cpu") if machine is None else machine.bf16)


def layout_of(
    config: Config,
    problem: Problem,
    machine: Machine | None,
    ranks: int,
    ranks_per_host: int | None,
    threads: int | None,
) -> RankLayout:
    """The rank layout of a job that does not run, on hosts that are named by their number.

    Args:
        config, problem: of the run.
        machine: where it would run; None: on hosts like this one.
        ranks: N.
        ranks_per_host: None for the most that the machine file was measured with, without one for all N.
        threads: of each rank; None for OMP_NUM_THREADS, else for the cores of a host divided by its ranks.

    Raises:
        UserError: OMP_NUM_THREADS is no number; or the GPU that ``device: cuda`` asks for is not in the machine file.
    """
    gpus = sorted({step.device for step in machine.steps if step.device != "cpu"}) if machine is not None else []
    if config.device == "cuda" and machine is not None and not gpus:
        raise UserError(
            "device is 'cuda', but the machine file has no times of a GPU; add them by `mpirun -n N hpcdd bench step "
            "--device cuda --output FILE`, or use --device cpu"
        )
    on_gpu = config.device == "cuda" or (config.device == "auto" and bool(gpus))
    measured = max((step.busy for step in machine.steps), default=ranks) if machine is not None else ranks
    per_host = min(ranks, ranks_per_host or measured)
    cores = range(os.cpu_count() or 1 if machine is None else machine.host.cores)
    if threads is None:
        quota = environment.cpu_quota() if machine is None else math.inf
        threads = threads_of(cores, [cores] * per_host, os.environ, quota)
    device_id = "cpu" if not on_gpu else gpus[0] if gpus else "cuda"
    places = [
        RankPlacement(
            rank,
            f"host {rank // per_host}",
            f"cuda:{rank % per_host}" if on_gpu and block else "cpu",
            device_id if block else "cpu",
            threads,
            tuple(block),
            replica,
        )
        for rank, (block, replica) in enumerate(assign(len(problem.decomposition), ranks))
    ]
    return RankLayout(len(problem.decomposition), tuple(places))


def draw(problem: Problem, layout: RankLayout, path: Path) -> None:
    """Writes a PNG of the first training image with the boxes on it, in the colours of their owners.

    Of a volume three slices are shown. A file that is there is replaced.

    Raises:
        WriteError: it can't be written.
    """
    decomposition, info = problem.decomposition, problem.info
    owners = [layout.owner(s) for s in range(len(decomposition.boxes))]
    ranks = len(set(owners))
    title = (
        f"{info.name}: {by(info.image_shape[1:])} pixels, {len(owners)} boxes on {ranks} rank{'s' * (ranks > 1)}, "
        "a colour for each rank"
    )
    sheet = contact_sheet.of_one(info, decomposition, owners, title)
    with writing(path), atomic_write(path) as temporary:
        sheet.save(temporary, "PNG")


def most_on_a_host(layout: RankLayout) -> int:
    """Ranks on the fullest host, which is the first."""
    return sum(placement.host == layout.placements[0].host for placement in layout.placements)


def memories_of(
    workload: Workload, layout: RankLayout, machine: Machine | None, ready: int
) -> list[tuple[Memory, Where]]:
    """By rank its memory at the fullest moment, and where it keeps its samples.

    What `auto` would choose is found with the memory of a host of the machine; without a machine, of this one.
    """
    config, problem = workload.config, workload.problem
    made = Memories(workload, len(layout.placements), ready)
    budget = _budget(config, layout, machine)
    known: dict[tuple[object, ...], tuple[Memory, Where]] = {}
    memories = []
    for placement in layout.placements:
        # A GPU's memory is not known here: what fits the host's budget is taken to fit the GPU.
        on_gpu = None if placement.device == "cpu" else budget
        where = choose(config.data.storage, bytes_needed(config, problem, placement.subdomains), budget, on_gpu)
        shapes = tuple(problem.subimage_shape(s) for s in placement.subdomains)
        boxes = tuple(problem.bytes_of([s]) for s in placement.subdomains)
        key = (shapes, boxes, placement.rank == 0)
        if key not in known:
            memory = made.of(placement.subdomains, where, is_root=placement.rank == 0, device=placement.device)
            known[key] = memory, where
        memories.append(known[key])
    return memories


def _budget(config: Config, layout: RankLayout, machine: Machine | None) -> int:
    if config.data.memory is not None:
        return config.data.memory << 20
    host = environment.available_memory() if machine is None else machine.host.memory_bytes
    return host // (2 * most_on_a_host(layout))


def _describe_budget(config: Config, layout: RankLayout, machine: Machine | None) -> str:
    if config.data.storage != "auto":
        return "as data.storage says"
    size = f"{_budget(config, layout, machine) / 2**20:,.0f} MiB"
    if config.data.memory is not None:
        return f"data.memory allows {size}"
    whose = "what is free here" if machine is None else "the memory of a host"
    return f"a budget of {size}: half of {whose}, divided by its {most_on_a_host(layout)} ranks"
