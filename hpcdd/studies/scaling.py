"""``hpcdd scale``: strong and weak scaling, measured step by step and appended to a file.

Strong scaling: the same problem on n ranks, speed-up T(1) / T(n), efficiency T(1) / (n T(n)). Weak scaling: a problem
n times as large (:mod:`hpcdd.studies.weak_scaling`), efficiency T(1) / T(n). T is the time of a step on the slowest
rank.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from ..artifacts import scaling_log
from ..config.scaling_study import ScalingStudy
from ..core import environment
from ..core.errors import UserError
from ..core.interleaved_timing import rotated
from ..data.problem import Problem, build_problem
from ..data.reading import BoxReader
from ..mpi.communicator import Comm
from ..mpi.runtime import mpi_library
from .scaling_file import ScalingRequest
from .scaling_point import ScalingPoint, Timing
from .weak_scaling import RepeatedReader, grow


def run(comm: Comm, request: ScalingRequest) -> None:
    """Called by all ranks; root appends and prints.

    Raises:
        UserError: on all ranks.
        WriteError: on all ranks, if the file can't be written.
    """
    study = request.study
    os.environ["OMP_NUM_THREADS"] = str(study.threads)
    problem = comm.on_root(lambda: _problem(request))
    sizes = comm.on_root(lambda: _sizes(study, comm.size))
    layouts = dict(zip(sizes, _layouts(comm, request, sizes), strict=True))
    name = series(request)
    measured = comm.on_root(lambda: [line.key for line in scaling_log.read(request.output, may_be_missing=True)])
    wanted = [
        (ranks, phase, repeat)
        for repeat in range(study.repeats)
        for ranks in rotated(sizes, repeat)
        for phase in study.phases
        if (name, phase, ranks, repeat, layouts[ranks]) not in measured
    ]
    if not wanted:
        if comm.is_root:
            listed = ", ".join(map(str, sizes))
            print(f"{request.output} already has all {study.repeats} repeats on {listed} ranks", flush=True)
        return
    comm.on_root(lambda: scaling_log.check_writable(request.output))
    job = comm.on_root(lambda: secrets.token_hex(8))
    with contextlib.ExitStack() as stack:
        measuring = sorted({ranks for ranks, _, _ in wanted})
        points = {ranks: _point(comm, request, problem, ranks, stack) for ranks in measuring}
        if comm.is_root:
            texts = [text for point in points.values() if point is not None for text in point.warnings]
            print("".join(f"warning: {text}\n" for text in dict.fromkeys(texts)), end="", flush=True)
        facts = comm.on_root(lambda: {**environment.facts(), "mpi_library": mpi_library()})
        for ranks, phase, repeat in wanted:
            point = points[ranks]
            timing = point.measure(phase, study.warm_up, study.steps) if point is not None else None
            comm.maximum(0)  # the others wait meanwhile
            line = None
            if point is not None and timing is not None:
                line = _line(request, phase, ranks, repeat, timing) | {
                    **point.facts(), "layout": layouts[ranks], "job": job, "machine": facts, "job_ranks": comm.size
                }  # fmt: skip
            comm.on_root(lambda: scaling_log.append(request.output, scaling_log.ScalingLine.model_validate(line)))  # noqa: B023 - at once
            if comm.is_root and timing is not None:
                print(
                    f"{phase} on {ranks} rank{'s' * (ranks > 1)}, repeat {repeat}: "
                    f"{timing.seconds / study.steps * 1e3:,.2f} ms per step, {timing.bytes:,.0f} bytes",
                    flush=True,
                )


def series(request: ScalingRequest) -> str:
    """See :func:`hpcdd.artifacts.scaling_log.series`."""
    return scaling_log.series(request.study.model_dump(mode="json"), request.config.model_dump(mode="json"))


def _line(request: ScalingRequest, phase: str, ranks: int, repeat: int, timing: Timing) -> dict[str, Any]:
    """What :class:`hpcdd.artifacts.scaling_log.ScalingLine` says of the study and of the measurement."""
    study = request.study
    return {
        "series": series(request),
        "name": request.config.name,
        "kind": study.kind,
        "phase": phase,
        "ranks": ranks,
        "repeat": repeat,
        "seconds": timing.seconds,
        "counting_steps": study.steps,
        "steps": [
            scaling_log.Step(slowest=slow, fastest=fast, warm_up=number < study.warm_up)
            for number, (slow, fast) in enumerate(zip(timing.slowest, timing.fastest, strict=True))
        ],
        "calls_per_step": timing.calls,
        "bytes_per_step": timing.bytes,
        "threads": study.threads,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "study": study.model_dump(mode="json", exclude={"config"}),
        "config": request.config.model_dump(mode="json"),
    }


def _layouts(comm: Comm, request: ScalingRequest, sizes: Sequence[int]) -> list[scaling_log.MeasuredLayout]:
    """Collective: for each size n, the layout of the first n ranks."""
    on_gpu = request.config.device != "cpu" and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else "cpu"
    everyone = comm.allgather_object((socket.gethostname(), environment.processor(), device))
    return [
        scaling_log.MeasuredLayout(
            ranks_by_host=sorted(Counter(host for host, _, _ in everyone[:ranks]).values(), reverse=True),
            processors=sorted({processor for _, processor, _ in everyone[:ranks]}),
            devices=sorted({device for _, _, device in everyone[:ranks]}),
            mpi_library=mpi_library(),
            torch=torch.__version__,
        )
        for ranks in sizes
    ]


def _problem(request: ScalingRequest) -> Problem:
    config = request.config
    if config.aggregation.placement != "root" and {"gather", "dnn"} & set(request.study.phases):
        raise UserError(
            "phases gather and dnn are measured where root trains the DNN, but aggregation.placement is "
            f"{config.aggregation.placement!r}; remove them from phases, or use root"
        )
    if "coherent" in request.study.phases and not config.coherent.starts:
        raise UserError(
            "phase coherent is measured, but coherent.starts is []; add a start, or remove coherent from phases"
        )
    problem = build_problem(config)
    if request.study.kind == "weak":
        grow(config, problem, 1)  # refuses a problem that can't grow
    return dataclasses.replace(problem, rows={"train": problem.rows["train"]})


def _point(
    comm: Comm, request: ScalingRequest, problem: Problem, ranks: int, stack: contextlib.ExitStack
) -> ScalingPoint | None:
    """Collective over all ranks: a point on the first ``ranks`` of them; None on the others.

    Raises:
        UserError: on all ranks.
    """
    part = comm.split(0 if comm.rank < ranks else None)
    return comm.on_all(lambda: None if part is None else _point_of(part, request, problem, ranks, stack))


def _point_of(
    part: Comm, request: ScalingRequest, problem: Problem, ranks: int, stack: contextlib.ExitStack
) -> ScalingPoint:
    reader = BoxReader(problem.info.path)
    if request.study.kind == "weak":
        reader = RepeatedReader(problem.info.path, stored=problem.info.image_shape[1:])
        problem = grow(request.config, problem, ranks)
    return ScalingPoint(part, request.config, request.study.phases, problem, reader, stack)


def _sizes(study: ScalingStudy, ranks: int) -> list[int]:
    wanted = [ranks] if study.ranks is None else sorted(study.ranks)
    possible = [n for n in wanted if n <= ranks]
    if not possible:
        raise UserError(f"ranks is {wanted}, but this job has {ranks}; start it with `mpirun -n {wanted[0]}` or more")
    return possible
