"""``hpcdd scale``: strong and weak scaling, measured step by step and appended to a file.

Strong scaling: the same problem on n ranks, speed-up T(1) / T(n), efficiency T(1) / (n T(n)). Weak scaling: a problem
n times as large (:mod:`hpcdd.studies.weak`), efficiency T(1) / T(n). T is the time of a step on the slowest rank.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from .. import environment
from ..comm import Comm
from ..data.reading import BoxReader
from ..errors import UserError
from ..mpi import mpi_library
from ..problem import Problem, pose
from ..turns import rotated
from . import record
from .point import Point, Timing
from .settings import Order, Study
from .weak import RepeatedReader, grow

FREE_SETTINGS = {"ranks", "phases", "repeats"}
"""Fields of a study that may change between jobs that append to one series."""


def run(comm: Comm, order: Order) -> None:
    """Called by all ranks; root appends and prints.

    Raises:
        UserError: on all ranks.
        WriteError: on all ranks, if the file can't be written.
    """
    study = order.study
    os.environ["OMP_NUM_THREADS"] = str(study.threads)
    problem = comm.on_root(lambda: _problem(order))
    measured = comm.on_root(lambda: _measured(order.output))
    name = series(order)
    sizes = comm.on_root(lambda: _sizes(study, comm.size))
    wanted = [
        (ranks, phase, repeat)
        for repeat in range(study.repeats)
        for ranks in rotated(sizes, repeat)
        for phase in study.phases
        if (name, phase, ranks, repeat) not in measured
    ]
    if not wanted:
        if comm.is_root:
            print(f"{order.output} has all {study.repeats} repeats on {_words(sizes)} ranks already", flush=True)
        return
    with contextlib.ExitStack() as stack:
        points = {ranks: _point(comm, order, problem, ranks, stack) for ranks in sizes if _any(ranks, wanted)}
        facts = comm.on_root(lambda: {**environment.facts(), "mpi_library": mpi_library()})
        for ranks, phase, repeat in wanted:
            point = points[ranks]
            timing = point.measure(phase, study.warm_up, study.steps) if point is not None else None
            comm.maximum(0)  # the others sleep meanwhile
            if point is not None and timing is not None:
                line = _line(order, name, ranks, phase, repeat, timing)
                line |= {**point.facts(), "machine": facts, "job_ranks": comm.size}
            comm.on_root(lambda: record.append(order.output, line))  # noqa: B023 - called at once
            if comm.is_root and timing is not None:
                print(
                    f"{phase} on {ranks} rank{'s' * (ranks > 1)}, repeat {repeat}: "
                    f"{timing.seconds / study.steps * 1e3:,.2f} ms per step, {timing.bytes:,.0f} bytes",
                    flush=True,
                )


def series(order: Order) -> str:
    """Identity of what is comparable: the study and its problem, as a short digest."""
    study = order.study.model_dump(mode="json", exclude={*FREE_SETTINGS, "config"})
    config = order.config.model_dump(mode="json", exclude={"output", "progress", "checkpoint", "run"})
    return hashlib.sha256(json.dumps([study, config], sort_keys=True).encode()).hexdigest()[:12]


def _line(order: Order, name: str, ranks: int, phase: str, repeat: int, timing: Timing) -> record.Line:
    study = order.study
    return {
        "hpcdd_scaling": record.FORMAT,
        "series": name,
        "name": order.config.name,
        "kind": study.kind,
        "phase": phase,
        "ranks": ranks,
        "repeat": repeat,
        "seconds": timing.seconds,
        "counting_steps": study.steps,
        "steps": [
            {"slowest": slow, "fastest": fast, "warm_up": number < study.warm_up}
            for number, (slow, fast) in enumerate(zip(timing.slowest, timing.fastest, strict=True))
        ],
        "calls_per_step": timing.calls,
        "bytes_per_step": timing.bytes,
        "threads": study.threads,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "study": study.model_dump(mode="json", exclude={"config"}),
        "config": order.config.model_dump(mode="json"),
    }


def _problem(order: Order) -> Problem:
    config = order.config
    if config.aggregation.placement != "root" and {"gather", "dnn"} & set(order.study.phases):
        raise UserError(
            "phases gather and dnn are measured where root trains the DNN, but aggregation.placement is "
            f"{config.aggregation.placement!r}; leave them out of phases, or use root"
        )
    problem = pose(config)
    if order.study.kind == "weak":
        grow(config, problem, 1)  # can it grow at all?
    return dataclasses.replace(problem, rows={"train": problem.rows["train"]})


def _point(comm: Comm, order: Order, problem: Problem, ranks: int, stack: contextlib.ExitStack) -> Point | None:
    """Collective over all ranks: a point on the first ``ranks`` of them; None on the others.

    Raises:
        UserError: on all ranks.
    """
    part = comm.split(0 if comm.rank < ranks else None)
    return comm.on_all(lambda: None if part is None else _point_of(part, order, problem, ranks, stack))


def _point_of(part: Comm, order: Order, problem: Problem, ranks: int, stack: contextlib.ExitStack) -> Point:
    reader = BoxReader(problem.info.path)
    if order.study.kind == "weak":
        reader = RepeatedReader(problem.info.path, stored=problem.info.image_shape[1:])
        problem = grow(order.config, problem, ranks)
    return Point(part, order.config, order.study.phases, problem, reader, stack)


def _sizes(study: Study, ranks: int) -> list[int]:
    wanted = [ranks] if study.ranks is None else sorted(study.ranks)
    possible = [n for n in wanted if n <= ranks]
    if not possible:
        raise UserError(f"ranks is {wanted}, but this job has {ranks}; start it with `mpirun -n {wanted[0]}` or more")
    return possible


def _any(ranks: int, wanted: Collection[tuple[int, str, int]]) -> bool:
    return any(of == ranks for of, _, _ in wanted)


def _measured(path: Path) -> set[record.Key]:
    return {record.key(line) for line in record.read(path)} if path.exists() else set()


def _words(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
