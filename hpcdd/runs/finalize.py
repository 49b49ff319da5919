"""The end of a run: model.h5, decisions.h5, results.json, and the table on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..artifacts import results, summary
from ..artifacts.model_file import write_model
from ..artifacts.results import Results
from ..config.schema import Config
from ..core import environment
from ..core.errors import WriteError
from ..core.files import writing
from ..core.names import CountedName, PhaseName, Start, TrainingName, coherent_phase
from ..core.seeding import WHOLE
from ..data.problem import Problem
from ..models.dnn import DNN
from ..models.serialization import State
from ..mpi.traffic import Traffic
from ..parallel.sharded_coherent import ShardedCoherentModel, ShardedDNN, collect_dnn
from ..parallel.team import Team
from ..phases.attribution import ATTRIBUTION_SPLIT
from ..phases.attribution_examples import predictions_of
from ..phases.coherent import coherent_parameters
from ..phases.gather import gather_parameters
from ..phases.local import LocalResult, create_local_cnn
from ..training.checkpoints.manager import TrainingCosts
from .context import RunContext
from .session import RunSession

Accuracies = dict[str, dict[str, Any]]
"""By split what results.json says of its accuracies."""


@dataclass
class Trained:
    """What a run has trained and found so far, on one rank.

    Attributes:
        local: by subdomain of this rank, the trained CNN.
        dnn: this rank's part of the trained DNN, on the CPU.
        models: by start, this rank's part of the coherently trained model.
        global_cnn: on every worker, if it is trained.
        accuracy: for results.json, as far as it is known.
        steps: training steps by phase, of the phases whose messages are counted by step.
    """

    accuracy: Accuracies
    local: dict[int, LocalResult] = field(default_factory=dict)
    dnn: ShardedDNN | None = None
    models: dict[Start, ShardedCoherentModel] = field(default_factory=dict)
    global_cnn: nn.Module | None = None
    steps: dict[TrainingName, int] = field(default_factory=dict)


def dnn_template(config: Config, problem: Problem, *, coherent: bool = False) -> DNN:
    """The DNN on the local outputs, or (``coherent``) that of the coherent model, without parameters in memory."""
    settings = config.coherent_dnn if coherent else config.aggregation
    widths = problem.feature_widths(settings.features)
    with torch.device("meta"):
        return DNN(widths, settings.hidden, problem.info.num_classes, settings.dropout)


def finalize(session: RunSession, trained: Trained) -> None:
    """Collective: the parameters come to root, which writes the run's files and prints the table.

    Raises:
        WriteError: on all ranks, if something can't be written.
    """
    context, directory = session.context, session.directory
    comm, problem, config = context.comm, context.problem, context.config
    with session.phase("record"):
        states = _states(context, trained)
        fault: WriteError | None = None
        if comm.is_root:
            width = problem.widths.local_width
            try:
                write_model(directory.model, config, problem.info, problem.decomposition, width, states)
            except OSError as error:
                fault = WriteError(f"{directory.model} can't be written: {error.strerror}")
        for _ in states:  # this rank's part of the collectives, if it has not had it
            pass
        comm.refuse(fault)
        comm.on_root(lambda: _write_predictions(session))
        everyone = comm.gather_object(_costs(session, trained))
    content = comm.on_root(lambda: None if everyone is None else _write_results(session, trained, everyone))
    session.storage.log.info("complete")
    if content is not None and comm.is_root and not context.job.study:
        session.display.close()
        summary.print_results(content, directory.path, sys.stdout)


def _write_predictions(session: RunSession) -> None:
    """On root: decisions.h5, from the arrays of each phase."""
    context = session.context
    arrays = {name: values for of_phase in session.storage.arrays.values() for name, values in of_phase.items()}
    features = context.config.aggregation.features
    predictions = predictions_of(context.problem, ATTRIBUTION_SPLIT, features, context.attribution_rows, arrays)
    with writing(session.directory.decisions):
        predictions.write(session.directory.decisions)


@dataclass(frozen=True)
class _Costs:
    """Of one rank.

    Attributes:
        local: seconds of each local training for which it speaks.
        worked: CPU seconds by phase.
        traffic: by phase.
        bytes_read: of pixels.
        checkpoints: seconds.
        memory: see :func:`_peak_memory`.
        startup: seconds by cause.
    """

    local: list[float]
    worked: dict[PhaseName, float]
    traffic: dict[CountedName, Traffic]
    bytes_read: int
    checkpoints: float
    memory: tuple[int, int | None]
    startup: dict[str, float]


def _costs(session: RunSession, trained: Trained) -> _Costs:
    """What the trainings whose checkpoints this rank leads have cost in earlier jobs is part of it."""
    context, stats = session.context, session.checkpoints.stats
    seconds = [
        result.seconds + stats.earlier.get(("local", s), TrainingCosts()).seconds for s, result in trained.local.items()
    ]
    worked, traffic = dict(session.timer.core_seconds), dict(context.comm.traffic)
    for (phase, _), earlier in stats.earlier.items():
        worked[phase] = worked.get(phase, 0.0) + earlier.core_seconds
        now = traffic.get(phase, Traffic())
        traffic[phase] = Traffic(now.calls + earlier.calls, now.bytes + earlier.bytes)
    return _Costs(
        local=seconds if context.placement.replica == 0 else [],
        worked=worked,
        traffic=traffic,
        bytes_read=context.reader.bytes_read,
        checkpoints=stats.seconds,
        memory=_peak_memory(context.placement.device),
        startup=context.comm.startup.seconds,
    )


def _peak_memory(device: str) -> tuple[int, int | None]:
    """Bytes that this rank has had in memory at most so far: of the host, and what torch has taken of its GPU."""
    _, host = environment.resident_memory()
    return host, None if device == "cpu" else torch.cuda.max_memory_allocated(device)


def _write_results(session: RunSession, trained: Trained, everyone: Sequence[_Costs]) -> Results:
    """On root: results.json, and that the run is complete.

    Args:
        session, trained: of root.
        everyone: the :func:`_costs` of every rank.
    """
    context, storage = session.context, session.storage
    seconds: dict[PhaseName | Literal["checkpoints", "total"], Any] = dict(session.timer.seconds.items())
    steps = dict(trained.steps)
    for (phase, subdomain), earlier in session.checkpoints.stats.earlier.items():
        if subdomain == WHOLE:
            seconds[phase] = seconds.get(phase, 0.0) + earlier.seconds
            if phase in steps:
                steps[phase] += earlier.steps
    seconds["local"] = [duration for of_rank in everyone for duration in of_rank.local]
    seconds["checkpoints"] = max(of_rank.checkpoints for of_rank in everyone)
    seconds["total"] = context.comm.startup.age
    communication = results.traffic_of([of_rank.traffic for of_rank in everyone], steps)
    for evaluation in storage.evaluated.values():
        for phase, cost in evaluation["costs"].items():
            seconds.setdefault(phase, cost["seconds"])
            communication.setdefault(phase, {"calls": cost["calls"], "bytes": cost["bytes"]})
    reused = {phase: Path(source).name for phase, source in storage.record["reused"].items()}
    facts: dict[str, Any] = {
        **results.facts_of(context.config, context.problem, context.layout),
        "parameters": _parameters(context, trained),
        "accuracy": trained.accuracy,
        "seconds": seconds,
        "core_seconds": results.summed(of_rank.worked for of_rank in everyone),
        "communication": communication,
        "bytes_read": [of_rank.bytes_read for of_rank in everyone],
        "startup": results.longest([of_rank.startup for of_rank in everyone]),
        "memory": [of_rank.memory[0] for of_rank in everyone],
        "gpu_memory": [of_rank.memory[1] for of_rank in everyone],
    }
    content = Results.model_validate(facts | ({"reused": reused} if reused else {}))
    content.write(session.directory.results)
    storage.complete()
    return content


def _states(context: RunContext, trained: Trained) -> Iterator[tuple[str, State]]:
    """Collective: place in model.h5 and ``state_dict`` of all trained networks, one after the other; on root."""
    team, config, problem = context.team, context.config, context.problem
    if team is None or trained.dnn is None:
        return
    yield from _cnn_states(team, problem, "local", {s: result.network for s, result in trained.local.items()})
    yield "dnn", _state(collect_dnn(team, trained.dnn, dnn_template(config, problem)))
    for start, model in trained.models.items():
        yield from _cnn_states(team, problem, f"{coherent_phase(start)}/local", model.local_cnns())
        yield (
            f"{coherent_phase(start)}/dnn",
            _state(collect_dnn(team, model.dnn, dnn_template(config, problem, coherent=True))),
        )
    if trained.global_cnn is not None:
        yield "global", trained.global_cnn.state_dict()


def _cnn_states(
    team: Team, problem: Problem, folder: str, cnns: Mapping[int, nn.Module]
) -> Iterator[tuple[str, State]]:
    num_classes = problem.info.num_classes
    templates = (
        create_local_cnn(team.config, s, problem.subimage_shape(s), num_classes, problem.widths.local_width)
        for s in range(len(problem.decomposition))
    )
    for s, state in enumerate(gather_parameters(team.workers, team.layout, cnns, templates)):
        yield f"{folder}/{s:04d}", state


def _parameters(context: RunContext, trained: Trained) -> dict[str, Any]:
    """Trainable parameters, for results.json."""
    config, problem = context.config, context.problem
    widths = problem.widths
    parameters: dict[str, Any] = {"global": widths.global_parameters, "local": list(widths.local_parameters)}
    parameters["dnn"] = sum(p.numel() for p in dnn_template(config, problem).parameters())
    if trained.models:
        parameters["coherent"] = coherent_parameters(problem, config)
    return parameters


def _state(network: nn.Module | None) -> State:
    return {} if network is None else network.state_dict()
