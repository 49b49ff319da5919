"""``hpcdd evaluate``: all strategies of a trained model on a data set, on any number of ranks.

Each rank reads the CNNs of its own subdomains, their columns of the DNN's first layer and their boxes, and nothing
else; then it evaluates and computes the attribution as at the end of a run's phases.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np
import numpy.typing as npt
from torch import nn

from ..artifacts import metrics
from ..artifacts.evaluation_cache import Arrays
from ..artifacts.evaluation_file import Evaluation
from ..artifacts.model_file import ModelFile, open_model
from ..artifacts.predictions import SplitPredictions
from ..artifacts.results import Accuracy
from ..config.schema import Config
from ..core import environment
from ..core.devices import use_processor
from ..core.files import write_json, writing
from ..core.names import CLASSIFIERS, STRATEGIES, coherent_phase
from ..core.text_table import print_plain
from ..data import sample_storage
from ..data.problem import Problem
from ..data.reading import BoxReader
from ..data.samples import channels_last
from ..decomposition import rank_layout
from ..models.serialization import on_host
from ..mpi.communicator import Comm
from ..parallel.batch_shards import Flag
from ..parallel.sharded_coherent import ShardedCoherentModel, ShardedDNN
from ..parallel.team import Team, form_team
from ..phases.attribution import Attribution, attribution_rows
from ..phases.attribution_examples import predictions_of
from ..phases.coherent import evaluate_coherent
from ..phases.evaluation import dnn_accuracy, rule_accuracies
from ..phases.global_cnn import global_accuracies
from ..phases.local import local_outputs
from ..runs.training_run import ranks_of
from .evaluate_request import EvaluateRequest
from .evaluation_problem import build_evaluation_problem, check_output
from .load import model_of

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class _Task:
    """The same on every rank: the request, the run's configuration, the problem, and the samples of the attribution."""

    request: EvaluateRequest
    config: Config
    problem: Problem
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Parts:
    """This rank's part of all networks, in evaluation mode."""

    local: dict[int, nn.Module]
    dnn: ShardedDNN
    coherent: dict[str, ShardedCoherentModel]
    global_cnn: nn.Module | None


def evaluate(
    run: str | os.PathLike[str],
    *,
    data: str | None = None,
    split: str = "test",
    output: str | os.PathLike[str] | None = None,
    own: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    comm: MPI.Comm | None = None,
) -> Evaluation:
    """Evaluates a trained model like ``hpcdd evaluate``; collective over ``comm``.

    Args:
        run: directory of a run, or its model.h5.
        data: path of a dataset file, or ``embedded``; default: the run's own.
        split: ``train``, ``validation`` or ``test``.
        output: folder for evaluation.json and decisions.h5; default: they are not written.
        own: as for :func:`hpcdd.load`.
        device: where CNNs are evaluated: ``auto`` uses a GPU if the rank's host has one.
        comm: a communicator of mpi4py, which is duplicated; default: COMM_WORLD, or this process alone without mpirun.

    Returns:
        The evaluation, the same on every rank.

    Raises:
        UserError: on all ranks: the model and the data set do not match.
        WriteError: on all ranks: the results can't be written.
    """
    request = EvaluateRequest(Path(run), data, split, None if output is None else Path(output), own, device)
    with ranks_of(comm) as ranks:
        return run_request(ranks, request)


def run_request(comm: Comm, request: EvaluateRequest) -> Evaluation:
    """Evaluates a model, called by all ranks; root prints the table and writes the files.

    Raises:
        UserError: on all ranks: the model and the data set do not match.
        WriteError: on all ranks: the results can't be written.
    """
    start = time.perf_counter()
    task = comm.on_root(lambda: _task(request))
    config, problem, split = task.config, task.problem, task.request.split
    layout = rank_layout.build(comm, len(problem.decomposition), config.device)
    placement = layout.placements[comm.rank]
    use_processor(placement.threads, layout.neighbours(comm.rank))
    kept = sample_storage.decide(comm, config, problem, layout).of(comm.rank)
    team = form_team(comm, layout, config, Flag())
    parts = comm.on_all(lambda: None if team is None else _read(task, team))
    reader = BoxReader(problem.info.path)
    samples = comm.on_all(lambda: problem.read(reader, placement.subdomains, placement.device, kept))
    has_global = parts is not None and parts.global_cnn is not None
    images = comm.on_all(lambda: problem.read_whole(reader, placement.device, kept) if has_global else {})
    accuracy: dict[str, Any] = {}
    arrays: Arrays = {}
    if team is not None and parts is not None:
        labels, attribution, sharing = problem.labels(split), Attribution(team, task.rows), team.sharing(team.replicas)
        outputs = {
            s: local_outputs(config, cnn, split, samples[s][split], lambda: None, sharing)
            for s, cnn in parts.local.items()
        }
        logits, seen = {s: values for s, (values, _) in outputs.items()}, [features for _, features in outputs.values()]
        accuracy |= rule_accuracies(team, logits, labels) | {"dnn": dnn_accuracy(parts.dnn, seen, labels)}
        arrays |= attribution.rules(logits) | attribution.dnn("dnn", parts.dnn, seen)
        for name, model in parts.coherent.items():
            accuracies, seen = evaluate_coherent(team, problem, model, samples, lambda: None, split)
            accuracy[name], of_parts = accuracies[split]
            accuracy |= {} if of_parts is None else {f"{name}_parts": of_parts}
            arrays |= attribution.dnn(name, model.dnn, seen)
        if parts.global_cnn is not None:
            of_splits, whole = global_accuracies(team, problem, parts.global_cnn, images, lambda: None, split)
            accuracy["global"] = of_splits[split]
            arrays |= attribution.whole("global", whole)
    seconds = time.perf_counter() - start
    return comm.on_root(lambda: _report(task, accuracy, arrays, seconds, comm.size))


def _task(request: EvaluateRequest) -> _Task:
    """Opens the model and builds the problem, on root."""
    check_output(request.output)
    with open_model(model_of(request.run), request.user_factory) as model:
        config, problem = build_evaluation_problem(request, model)
    rows = attribution_rows(
        config,
        problem.samples[request.split],
        len(problem.decomposition),
        problem.info.num_classes,
        most_rows=problem.samples[request.split],
        most_bytes=environment.available_memory() // 4,
    )
    return _Task(request, config, problem, rows)


def _read(task: _Task, team: Team) -> _Parts:
    """This rank's part of the model, from its file."""
    config, problem, subdomains = task.config, task.problem, team.placement.subdomains
    axes = len(problem.decomposition.image)

    def ready(cnn: nn.Module) -> nn.Module:
        # As in the training, so that the same kernels give the same bits.
        cnn.to(team.placement.device, memory_format=channels_last(axes))  # type: ignore[call-overload]  # torch's stub lacks it
        return cnn

    with open_model(model_of(task.request.run), task.request.user_factory) as model:
        coherent: dict[str, ShardedCoherentModel] = {}
        for start in config.coherent.starts:
            cnns = {s: ready(model.coherent_cnn(start, s)) for s in subdomains}
            dnn = _sharded_dnn(model, f"{coherent_phase(start)}/dnn", team)
            coherent[coherent_phase(start)] = ShardedCoherentModel(cnns, dnn, config.coherent_features).eval()
        return _Parts(
            {s: ready(model.local_cnn(s)) for s in subdomains},
            _sharded_dnn(model, "dnn", team),
            coherent,
            ready(model.global_cnn()) if config.baseline.enabled else None,
        )


def _sharded_dnn(model: ModelFile, folder: str, team: Team) -> ShardedDNN:
    """This rank's part of a DNN; of the first layer only the columns of its subdomains are read."""
    template = model.dnn_template(folder)
    starts = list(itertools.accumulate(template.widths, initial=0))
    blocks = {s: model.columns(folder, starts[s], starts[s + 1]) for s in team.placement.subdomains}
    state = model.without_columns(folder)
    rest = on_host(template.rest)
    with model.reading():
        bias = state.pop("first.bias")
        rest.load_state_dict({name.removeprefix("rest."): values for name, values in state.items()})
    return ShardedDNN(blocks, bias, rest, team.reduction()).eval()


# -- report on root ----------------------------------------------------------------------------------------------------


def _report(task: _Task, accuracy: dict[str, Any], arrays: Arrays, seconds: float, ranks: int) -> Evaluation:
    """Prints the table and writes the files, on root."""
    predictions = predictions_of(task.problem, task.request.split, task.config.aggregation.features, task.rows, arrays)
    # The accuracies are those of all samples, even where the other metrics are those of some.
    by_strategy = {
        name: {**metrics.summary(values, predictions.labels), "accuracy": accuracy[name]}
        for name, values in predictions.strategies.items()
    }
    content = Evaluation(
        format=1,
        model=str(task.request.run),
        dataset=predictions.dataset,
        file=str(task.problem.info.path),
        split=predictions.split,
        samples=predictions.samples,
        examined=len(predictions.rows),
        accuracy=Accuracy.model_validate(accuracy),
        metrics=by_strategy,
        seconds=seconds,
        ranks=ranks,
    )
    if (folder := task.request.output) is not None:
        with writing(folder):
            predictions.write(folder / "decisions.h5")
            write_json(folder / "evaluation.json", content.content())
    _print(task, predictions, content, sys.stdout)
    return content


def _print(task: _Task, predictions: SplitPredictions, content: Evaluation, out: TextIO) -> None:
    from rich.table import Table
    from rich.text import Text

    title = f"{task.request.run} on {predictions.dataset}: {predictions.split}, {predictions.samples:,} samples"
    table = Table("strategy", title=Text(title), title_justify="left")
    for heading in metrics.SUMMARY.values():
        table.add_column(heading, justify="right")
    fine = len(task.problem.decomposition.boxes)
    for s, accuracy in enumerate(content.accuracy.local):
        table.add_row(f"local CNN {s}" if s < fine else f"coarse CNN {s}", f"{accuracy:.4f}")
    table.add_section()
    for name in CLASSIFIERS:
        if name in content.metrics:
            table.add_row(STRATEGIES[name].title, *[f"{content.metrics[name][key]:.4f}" for key in metrics.SUMMARY])
    print_plain(table, 120, out)
    if not predictions.is_whole:
        print(
            f"everything but the accuracies is measured on {len(predictions.rows):,} samples, drawn at random, because "
            "root has no memory for more",
            file=out,
        )
    print(f"{content.seconds:.1f} seconds on {content.ranks} rank{'s' if content.ranks > 1 else ''}", file=out)
    if task.request.output is not None:
        print(f"evaluation: {task.request.output / 'evaluation.json'}", file=out)
    out.flush()
