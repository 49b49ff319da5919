"""``hpcdd evaluate``: all strategies of a trained model on a data set, on any number of ranks or alone.

Each rank reads the CNNs of its own subdomains, their columns of the DNN's first layer and their boxes, and nothing
else; what follows is the evaluation and the examination at the end of a run's phases.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..artifacts import metrics
from ..artifacts.evaluation_cache import Pieces
from ..artifacts.evaluation_file import Evaluation
from ..artifacts.model_file import ModelFile, open_model
from ..artifacts.names import CLASSIFIERS, STRATEGIES
from ..artifacts.predictions import SplitPredictions
from ..artifacts.results import Accuracy
from ..config.schema import Config
from ..core import environment
from ..core.devices import use_processor
from ..core.files import write_json, writing
from ..core.text_table import print_plain
from ..data import sample_storage
from ..data.problem import Problem
from ..data.reading import BoxReader
from ..data.samples import channels_last
from ..decomposition import rank_layout
from ..models.dnn import DNN, features_of
from ..models.serialization import on_host
from ..mpi.communicator import Comm
from ..parallel.batch_shards import Flag
from ..parallel.sharded_coherent import ShardedCoherentModel, ShardedDNN
from ..parallel.team import Team, form_team
from ..phases.attribution import Attribution, examined_rows
from ..phases.attribution_examples import predictions_of
from ..phases.coherent import evaluate_coherent, feature_widths
from ..phases.evaluation import dnn_accuracy, rule_accuracies
from ..phases.global_cnn import global_accuracies
from ..phases.local import decided
from ..runs.training_run import ranks_of
from .evaluate_request import EvaluateRequest
from .evaluation_problem import build_evaluation_problem, check_output
from .load import model_of

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class _Task:
    """The same on every rank: what is wanted, the run's configuration, the problem, and which samples are examined."""

    order: EvaluateRequest
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
    """Called by all ranks; root prints, and writes what is wanted.

    Raises:
        UserError: on all ranks: the model and the data set do not match.
        WriteError: on all ranks: the results can't be written.
    """
    start = time.perf_counter()
    task = comm.on_root(lambda: _task(request))
    config, problem, split = task.config, task.problem, task.order.split
    place_of = rank_layout.build(comm, len(problem.decomposition), config.device)
    place = place_of.places[comm.rank]
    use_processor(place.threads, place_of.neighbours(comm.rank))
    kept = sample_storage.decide(comm, config, problem, place_of).of(comm.rank)
    team = form_team(comm, place_of, config, Flag())
    parts = comm.on_all(lambda: None if team is None else _read(task, team))
    reader = BoxReader(problem.info.path)
    samples = comm.on_all(lambda: problem.read(reader, place.subdomains, place.device, kept))
    wanted = parts is not None and parts.global_cnn is not None
    images = comm.on_all(lambda: problem.read_whole(reader, place.device, kept) if wanted else {})
    accuracy: dict[str, Any] = {}
    pieces: Pieces = {}
    if team is not None and parts is not None:
        labels, examination, share = problem.labels(split), Attribution(team, task.rows), team.share_of_replicas()
        logits = {
            s: decided(config, cnn, split, samples[s][split], lambda: None, share) for s, cnn in parts.local.items()
        }
        seen = [features_of(values, config.aggregation.features) for values in logits.values()]
        accuracy |= rule_accuracies(team, logits, labels) | {"dnn": dnn_accuracy(parts.dnn, seen, labels)}
        pieces |= examination.rules(logits) | examination.dnn("dnn", parts.dnn, seen)
        for name, model in parts.coherent.items():
            found, seen = evaluate_coherent(team, problem, model, samples, lambda: None, split)
            accuracy[name], of_parts = found[split]
            accuracy |= {} if of_parts is None else {f"{name}_parts": of_parts}
            pieces |= examination.dnn(name, model.dnn, seen)
        if parts.global_cnn is not None:
            of_splits, whole = global_accuracies(team, problem, parts.global_cnn, images, lambda: None, split)
            accuracy["global"] = of_splits[split]
            pieces |= examination.whole("global", whole)
    seconds = time.perf_counter() - start
    return comm.on_root(lambda: _tell(task, accuracy, pieces, seconds, comm.size))


def _task(wanted: EvaluateRequest) -> _Task:
    """On root."""
    check_output(wanted.output)
    with open_model(model_of(wanted.run), wanted.own) as model:
        config, problem = build_evaluation_problem(wanted, model)
    rows = examined_rows(
        config,
        problem.samples[wanted.split],
        len(problem.decomposition),
        problem.info.num_classes,
        most_rows=problem.samples[wanted.split],
        most_bytes=environment.available_memory() // 4,
    )
    return _Task(wanted, config, problem, rows)


def _read(task: _Task, team: Team) -> _Parts:
    """This rank's part of the model, from its file."""
    config, problem, own = task.config, task.problem, team.place.subdomains
    axes = len(problem.decomposition.image)

    def ready(cnn: nn.Module) -> nn.Module:
        # As in the training, so that the same kernels give the same bits.
        cnn.to(team.place.device, memory_format=channels_last(axes))  # type: ignore[call-overload]  # torch's stub lacks it
        return cnn

    with open_model(model_of(task.order.run), task.order.own) as model:
        coherent = {}
        for start in config.coherent.starts:
            cnns = {s: ready(model.coherent_cnn(start, s)) for s in own}
            dnn = _part_of_dnn(model, f"coherent_{start}/dnn", feature_widths(problem, config.coherent_features), team)
            coherent[f"coherent_{start}"] = ShardedCoherentModel(cnns, dnn, config.coherent_features).eval()
        return _Parts(
            {s: ready(model.local_cnn(s)) for s in own},
            _part_of_dnn(model, "dnn", feature_widths(problem, "logits"), team),
            coherent,
            ready(model.global_cnn()) if config.baseline.enabled else None,
        )


def _part_of_dnn(model: ModelFile, folder: str, widths: Sequence[int], team: Team) -> ShardedDNN:
    """This rank's part of a DNN; of the first layer its own columns alone are read."""
    settings = model.config.aggregation if folder == "dnn" else model.config.coherent_dnn
    starts = list(itertools.accumulate(widths, initial=0))
    blocks = {s: model.columns(folder, starts[s], starts[s + 1]) for s in team.place.subdomains}
    state = model.without_columns(folder)
    bias = state.pop("first.bias")
    with torch.device("meta"):
        rest = DNN(widths, settings.hidden, len(model.class_names), settings.dropout).rest
    rest = on_host(rest)
    rest.load_state_dict({name.removeprefix("rest."): values for name, values in state.items()})
    return ShardedDNN(blocks, bias, rest, team.reduction()).eval()


# -- root tells -------------------------------------------------------------------------------------------------------


def _tell(task: _Task, accuracy: dict[str, Any], pieces: Pieces, seconds: float, ranks: int) -> Evaluation:
    """On root: the table, and the files."""
    found = predictions_of(task.problem, task.order.split, task.config.aggregation.features, task.rows, pieces)
    # The accuracy is that of all samples, also where some were examined.
    by_strategy = {
        name: {**metrics.summary(values, found.labels), "accuracy": accuracy[name]}
        for name, values in found.strategies.items()
    }
    content = Evaluation(
        format=1,
        model=str(task.order.run),
        dataset=found.dataset,
        file=str(task.problem.info.path),
        split=found.split,
        samples=found.samples,
        examined=len(found.rows),
        accuracy=Accuracy.model_validate(accuracy),
        metrics=by_strategy,
        seconds=seconds,
        ranks=ranks,
    )
    if (folder := task.order.output) is not None:
        with writing(folder):
            found.write(folder / "decisions.h5")
            write_json(folder / "evaluation.json", content.content())
    _print(task, found, content, sys.stdout)
    return content


def _print(task: _Task, found: SplitPredictions, content: Evaluation, out: TextIO) -> None:
    from rich.table import Table
    from rich.text import Text

    title = f"{task.order.run} on {found.dataset}: {found.split}, {found.samples:,} samples"
    table = Table("strategy", title=Text(title), title_justify="left")
    for words in metrics.SUMMARY.values():
        table.add_column(words, justify="right")
    fine = len(task.problem.decomposition.boxes)
    for s, share in enumerate(content.accuracy.local):
        table.add_row(f"local CNN {s}" if s < fine else f"coarse CNN {s}", f"{share:.4f}")
    table.add_section()
    for name in CLASSIFIERS:
        if name in content.metrics:
            table.add_row(STRATEGIES[name].title, *[f"{content.metrics[name][key]:.4f}" for key in metrics.SUMMARY])
    print_plain(table, 120, out)
    if not found.is_whole:
        print(
            f"everything but the accuracies is measured on {len(found.rows):,} samples, drawn at random, because root "
            "has no memory for more",
            file=out,
        )
    print(f"{content.seconds:.1f} seconds on {content.ranks} rank{'s' if content.ranks > 1 else ''}", file=out)
    if task.order.output is not None:
        print(f"evaluation: {task.order.output / 'evaluation.json'}", file=out)
    out.flush()
