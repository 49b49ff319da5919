"""Coherent phase: all local CNNs and the DNN are trained on as one model.

arXiv 2408.14442: the local CNNs and the dense network that combines them are connected to one coherent model, which
is trained from scratch, or by transfer learning from the parts that were trained on their own. Model-parallel, each
rank keeps its CNNs, and a step costs one allreduce of batch x hidden numbers; data-parallel, each rank has a copy of
the whole model and trains it on its shard of every batch, and a step averages all gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..config.schema import Config
from ..core.names import Start, coherent_phase
from ..core.seeding import WHOLE
from ..data.problem import Problem
from ..data.samples import SideBySide, Subimages
from ..models.coherent_model import CoherentModel, prepare_cnn
from ..models.dnn import DNN, features_of
from ..models.penultimate import Penultimate, classifiers
from ..parallel.batch_shards import broadcast_state
from ..parallel.sharded_coherent import (
    ShardedCoherentModel,
    ShardedDNN,
    collect_dnn,
    onto_penultimate,
    pool,
    take_part,
)
from ..parallel.team import Team
from ..training.checkpoints.manager import NullCheckpointManager
from ..training.replica_checks import checked
from ..training.split_evaluation import logits_of
from ..training.status import Hooks
from ..training.trainer import train
from .aggregation import fresh_dnn
from .evaluation import dnn_accuracy, rule_accuracies
from .gather import gather_parameters
from .local import create_local_cnn, trains_batched, with_data

BySplit = Mapping[str, Subimages]


def train_coherent(
    team: Team,
    problem: Problem,
    start: Start,
    local: Mapping[int, nn.Module],
    dnn: ShardedDNN,
    samples: Mapping[int, BySplit],
    read: Callable[[list[int]], Mapping[int, BySplit]],
    hooks: Hooks,
    manager: NullCheckpointManager | None = None,
) -> tuple[ShardedCoherentModel, int]:
    """Collective over the workers.

    Args:
        team: of this rank.
        problem: what is to be solved.
        start: of the model.
        local: the trained CNNs of this rank's subdomains.
        dnn: this rank's part of the trained DNN, on the CPU.
        samples: by subdomain of this rank and split, the subimages on this rank's device.
        read: reads the samples of other subdomains, for data parallelism.
        hooks: called while it trains.
        manager: of its checkpoints.

    Returns:
        This rank's part of the trained model, in evaluation mode, on the rank's device; and the number of steps.

    Raises:
        DivergedError: the loss is NaN or infinite.
        DriftError: copies of the same parameters differ between ranks.
        StopRequest: on all ranks at the same step.
    """
    settings, device, phase = team.config.coherent_from(start), team.placement.device, coherent_phase(start)
    with team.workers.phase("setup"):
        part = initial_part(team, problem, start, local, dnn).to(device)
        if start == "scratch":
            for s, cnn in part.local_cnns().items():
                with_data(cnn, samples[s]["train"], team.config.seed, s)
        whole = assemble(team, problem, part, settings.frozen).to(device) if settings.parallelism == "data" else None
    if whole is not None:
        others = [s for s in range(team.layout.num_subdomains) if s not in samples]
        inputs = {**samples, **read(others)}
        network: nn.Module = whole
        parts: dict[int, nn.Module] = {WHOLE: whole.dnn, **dict(enumerate(whole.cnns))}
        sharing, replicated = team.sharing(team.workers), []
        copies = {"the coherent model": list(whole.parameters())}
    else:
        inputs, network = dict(samples), part
        if trains_batched(team.config, device, team.layout.replicas):
            part.stack(problem.by_shape(team.placement.subdomains))
        parts = {WHOLE: part.dnn, **part.unstacked()}
        sharing, replicated = team.sharing(team.replicas), part.dnn.replicated()
        copies = {f"CNN {s} and its columns": [*cnn.parameters(), part.dnn.blocks[s]] for s, cnn in part.cnns.items()}
        copies["the DNN's common layers"] = replicated
    hooks = checked(hooks, team.workers, copies, team.placement.arithmetic)

    def side_by_side(split: str) -> SideBySide:
        return SideBySide([inputs[s][split] for s in sorted(inputs)])

    steps = train(
        network,
        side_by_side("train"),
        side_by_side("validation") if "validation" in problem.samples else None,
        settings,
        seed=team.config.seed,
        phase=phase,
        parts=parts,
        stacks=part.stacks,
        sharing=sharing,
        replicated=replicated,
        continues=start == "transfer",
        hooks=hooks,
        manager=manager,
    )
    if whole is not None:
        cnns = {s: whole.cnns[s] for s in team.placement.subdomains}
        columns = take_part(whole.dnn, team.placement.subdomains, team.reduction())
        part = ShardedCoherentModel(cnns, columns, whole.features).to(device)
    part.stacks = ()
    return part.eval(), steps


def initial_part(
    team: Team, problem: Problem, start: Start, local: Mapping[int, nn.Module], dnn: ShardedDNN | None
) -> ShardedCoherentModel:
    """This rank's part of the coherent model before its training, on the CPU; see :func:`train_coherent`.

    From ``scratch`` the trained CNNs and the trained DNN are not read.
    """
    config, features, settings = team.config, team.config.coherent_features, team.config.coherent_from(start)
    num_classes, width = problem.info.num_classes, problem.widths.local_width

    def cnn(subdomain: int) -> nn.Module:
        shape = problem.subimage_shape(subdomain)
        made = create_local_cnn(config, subdomain, shape, num_classes, width)
        if start == "transfer":
            made.load_state_dict(local[subdomain].state_dict())
        return prepare_cnn(made, features, settings.dropout_scale, settings.frozen)

    cnns = {s: cnn(s) for s in team.placement.subdomains}
    on_logits = config.aggregation.features == "logits"
    if settings.dnn_start == "pool":
        dnn = pool(team.placement.subdomains, len(problem.decomposition), num_classes, team.reduction())
        on_logits = True
    elif start == "scratch" or settings.dnn_start == "fresh":
        dnn = None
    if dnn is None:
        first = fresh_dnn(team, config.coherent_dnn, problem.feature_widths(features), num_classes)
    elif features == "penultimate" and on_logits:
        first = onto_penultimate(dnn, {s: c for s, c in cnns.items() if isinstance(c, Penultimate)}, team.reduction())
    else:
        first = dnn.copy()
    return ShardedCoherentModel(cnns, first, features)


def coherent_parameters(problem: Problem, config: Config) -> int:
    """Trainable parameters of the coherent model."""
    features, num_classes, settings = config.coherent_features, problem.info.num_classes, config.coherent_dnn
    with torch.device("meta"):
        dnn = DNN(problem.feature_widths(features), settings.hidden, num_classes, settings.dropout)
    last_layers = 0
    if features == "penultimate":
        replaced = classifiers(problem.model, problem.subimage_shapes, num_classes, problem.widths.local_width)
        last_layers = sum(p.numel() for last in replaced for p in last.parameters())
    return sum(problem.widths.local_parameters) - last_layers + sum(p.numel() for p in dnn.parameters())


def assemble(team: Team, problem: Problem, part: ShardedCoherentModel, frozen: int = 0) -> CoherentModel:
    """Collective over the workers: root assembles the whole model and broadcasts it.

    Args:
        team: of this rank.
        problem: what is to be solved.
        part: this rank's part.
        frozen: first stages of the CNNs that are not trained.

    Returns:
        The whole model on every worker's CPU.
    """
    config, comm = team.config, team.workers
    num_classes, width = problem.info.num_classes, problem.widths.local_width

    def template(subdomain: int) -> nn.Module:
        cnn = create_local_cnn(config, subdomain, problem.subimage_shape(subdomain), num_classes, width)
        return prepare_cnn(cnn, part.features, config.coherent.dropout_scale, frozen)

    cnns = [template(s) for s in range(team.layout.num_subdomains)]
    rank_cnns = {int(s): cnn for s, cnn in part.cnns.items()}
    for cnn, state in zip(cnns, gather_parameters(comm, team.layout, rank_cnns, iter(cnns)), strict=True):
        broadcast_state(comm, cnn, state)
    widths = problem.feature_widths(part.features)
    dnn = DNN(widths, config.coherent_dnn.hidden, num_classes, config.coherent_dnn.dropout)
    on_root = collect_dnn(team, part.dnn, dnn)
    broadcast_state(comm, dnn, None if on_root is None else on_root.state_dict())
    return CoherentModel(cnns, dnn, part.features)


def evaluate_coherent(
    team: Team,
    problem: Problem,
    part: ShardedCoherentModel,
    samples: Mapping[int, BySplit],
    step: Callable[[], None],
    attribution_split: str = "test",
) -> tuple[dict[str, tuple[float, dict[str, Any] | None]], list[torch.Tensor]]:
    """Collective over the workers.

    Args:
        team: of this rank.
        problem: what is to be solved.
        part: this rank's part of the model.
        samples: by subdomain of this rank and split.
        step: called before each batch.
        attribution_split: the split whose predictions are attributed afterwards.

    Returns:
        By split the accuracy of the model; and that of its CNNs on their own, the accuracies of
        :func:`rule_accuracies` on their logits, None where the DNN sees penultimate features and the CNNs' last layers
        have not been trained with the rest. Also the DNN's input from each of this rank's CNNs on
        ``attribution_split``, float32 (n, F).
    """
    classes = part.features != "penultimate"
    sharing, batch = team.sharing(team.replicas), team.config.coherent.evaluation_batch
    dnn = part.dnn.cpu()
    accuracies: dict[str, tuple[float, dict[str, Any] | None]] = {}
    kept: list[torch.Tensor] = []
    for split in problem.samples:
        labels = problem.labels(split)
        outputs = {int(s): logits_of(cnn, samples[int(s)][split], batch, step, sharing) for s, cnn in part.cnns.items()}
        seen = [features_of(output, part.features) for output in outputs.values()]
        rules = rule_accuracies(team, outputs, labels) if classes else None
        accuracies[split] = dnn_accuracy(dnn, seen, labels), rules
        if split == attribution_split:
            kept = seen
    return accuracies, kept
