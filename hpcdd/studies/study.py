"""``hpcdd study``: all runs of a study, by groups of a job's ranks; complete runs are skipped."""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import RESUME, StopRequest
from ..mpi.communicator import Comm
from ..mpi.runtime import set_finalize_timeout
from ..mpi.stop import Stop, signal_reason
from . import rank_groups, run_queue
from .planned_runs import PlannedRun, plan_runs
from .rank_groups import Stage
from .study_directory import StudyDirectory
from .study_request import StudyRequest


@dataclass(frozen=True)
class Plan:
    """What a job does; the same on every rank.

    Attributes:
        job: its identity.
        entries: all runs of the study.
        stages: those that it trains.
    """

    job: str
    entries: tuple[PlannedRun, ...]
    stages: tuple[Stage, ...]


def run(comm: Comm, request: StudyRequest) -> int:
    """Called by all ranks; trains what is left to do, and root prints.

    Returns:
        The number of the chosen runs that have failed.

    Raises:
        UserError: on all ranks: something is wrong with a run's configuration or data, before any work; or what ends
            the whole study.
        StopRequest: on all ranks.
    """
    directory = StudyDirectory(request.output)
    stop = Stop(comm, comm.side_channel())
    stop.listen()
    plan = comm.on_root(lambda: _begin(directory, request, comm.size))
    if limits := [limit for run in request.runs if (limit := run.config.run.stall_timeout) is not None]:
        set_finalize_timeout(
            max(limits), f"another rank hangs while it ends; {request.output} is closed", RESUME
        )  # idle ranks too
    busy: list[str] = []
    try:
        for stage in plan.stages:
            if comm.is_root:
                print(_stage_line(stage, comm.size), flush=True)
            busy += rank_groups.work(comm, stop, directory, plan.job, stage, plan.entries)
    except StopRequest as stopped:
        more = comm.on_root(lambda: _end(directory, request, plan, busy)[0])
        why = signal_reason(stopped.signum, os.environ, time.time())
        raise stopped.saying(f" ({why}); {more}; resume it with the same command") from None
    text, failed = comm.on_root(lambda: _end(directory, request, plan, busy))
    if comm.is_root:
        print(text, flush=True)
    return failed


def _begin(directory: StudyDirectory, request: StudyRequest, ranks: int) -> Plan:
    """On root: checks every run, makes the study directory, and plans what is left to do."""
    entries = [entry for entry, _ in plan_runs(request.runs, request.ranks, ranks)]
    directory.begin(request)
    chosen = {run.id for run in request.chosen}
    if request.retry:
        for run in request.chosen:
            directory.clear(run.id)
    left = [
        entry
        for entry in entries
        if entry.run.id in chosen and directory.condition(entry.run) in ("unfinished", "not begun")
    ]
    return Plan(secrets.token_hex(8), tuple(entries), tuple(rank_groups.stages(left, ranks)))


def _stage_line(stage: Stage, ranks: int) -> str:
    idle = ranks - stage.groups * stage.size
    runs, size = len(stage.entries), f"{stage.size} rank{'s' * (stage.size > 1)}"
    text = f"{runs} run{'s' * (runs > 1)} on {stage.groups} group{'s' * (stage.groups > 1)} of {size}"
    return text + (f"; {idle} of {ranks} ranks {'is' if idle == 1 else 'are'} idle" if idle else "")


def _end(directory: StudyDirectory, request: StudyRequest, plan: Plan, busy: Sequence[str]) -> tuple[str, int]:
    """On root: removes the job's claims.

    Returns:
        The conditions of the chosen runs, with a line for each that has failed or is in use; and how many have failed.
    """
    conditions: dict[str, str] = {run.id: directory.condition(run) for run in request.chosen}
    run_queue.close(directory, plan.job)
    conditions |= {run: "in use by another job" for run in busy if conditions[run] == "unfinished"}
    counts = Counter(conditions.values())
    summary = ", ".join(f"{number} {condition}" for condition, number in sorted(counts.items()))
    lines = [f"{len(conditions)} run{'s' * (len(conditions) > 1)} in {directory.path}: {summary}"]
    for run, condition in conditions.items():
        if condition == "failed":
            first, *_ = (directory.failure(run) or "").split("\n")
            lines.append(f"  failed  {run}: {first}")
        elif condition.startswith("in use"):
            lines.append(f"  in use  {run}")
    if counts["failed"]:
        lines.append(f"{directory.failures}/*.json have the details; --retry runs these runs again")
    return "\n".join(lines), counts["failed"]
