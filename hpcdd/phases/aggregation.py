"""Aggregation: the DNN learns to combine the local outputs.

arXiv 2302.06564 trains a dense network (DNN) that takes the local CNNs' probability distributions and gives the
global prediction, and compares it with average probability and majority vote (:mod:`hpcdd.models.aggregators`).
Here, it may see logits or penultimate features instead of probabilities. Root trains it on the gathered outputs while
the others wait; or all ranks train it distributed, where the outputs are, for problems whose outputs don't fit on one
rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..config.schema import AggregationSettings, Config
from ..data.samples import Samples, SideBySide
from ..models.dnn import DNN, create_dnn, initial_block, initial_rest
from ..parallel.batch_shards import BatchSharing
from ..parallel.sharded_coherent import ShardedDNN
from ..parallel.team import Team
from ..training.checkpoints.manager import NullCheckpointManager
from ..training.replica_checks import checked
from ..training.status import Hooks
from ..training.trainer import train

Splits = Mapping[str, torch.Tensor]


def train_dnn(
    config: Config,
    features: Splits,
    labels: Splits,
    widths: Sequence[int],
    num_classes: int,
    hooks: Hooks,
    manager: NullCheckpointManager | None = None,
) -> DNN:
    """Trains the DNN on root's processor; no messages.

    Args:
        config: the run's configuration.
        features: what it sees by split, float32 (n, sum of widths).
        labels: by split, int64 (n,).
        widths: features of every subdomain, S numbers.
        num_classes: K.
        hooks: called while it trains.
        manager: of its checkpoints.

    Returns:
        The DNN, in evaluation mode.

    Raises:
        DivergedError: the loss is NaN or infinite.
        StopRequest: from ``hooks.step``.
    """
    dnn = create_dnn(config.aggregation, widths, num_classes, config.seed)
    train(
        dnn,
        Samples(features["train"], labels["train"]),
        Samples(features["validation"], labels["validation"]) if "validation" in features else None,
        config.aggregation,
        seed=config.seed,
        phase="dnn",
        hooks=hooks,
        manager=manager,
    )
    return dnn.eval()


def train_distributed_dnn(
    config: Config,
    team: Team,
    features: Mapping[int, Splits],
    labels: Splits,
    widths: Sequence[int],
    num_classes: int,
    hooks: Hooks,
    manager: NullCheckpointManager | None = None,
) -> ShardedDNN:
    """Collective over the workers: trains the DNN where the local outputs are; one message per step, no gather.

    It begins with the same parameters and visits the same batches as :func:`train_dnn`.

    Args:
        config: the run's configuration.
        team: of this rank.
        features: what the DNN sees by subdomain of this rank and split, float32 (n, F).
        labels: by split, int64 (n,).
        widths: F of every subdomain, S numbers.
        num_classes: K.
        hooks: called while it trains.
        manager: of its checkpoints.

    Returns:
        This rank's part of the DNN, in evaluation mode.

    Raises:
        DivergedError: the loss is NaN or infinite.
        StopRequest: on all ranks at the same step.
    """
    dnn = fresh_dnn(team, config.aggregation, widths, num_classes)

    def samples(split: str) -> SideBySide:
        return SideBySide([Samples(splits[split], labels[split]) for splits in features.values()])

    train(
        dnn,
        samples("train"),
        samples("validation") if "validation" in labels else None,
        config.aggregation,
        seed=config.seed,
        phase="dnn",
        sharing=BatchSharing(flag=team.flag),
        hooks=checked(hooks, team.across, {"the DNN's common layers": dnn.replicated()}, team.placement.arithmetic),
        manager=manager,
    )
    return dnn.eval()


def fresh_dnn(team: Team, settings: AggregationSettings, widths: Sequence[int], num_classes: int) -> ShardedDNN:
    """This rank's part of a DNN with initial parameters; no message.

    Args:
        team: of this rank.
        settings: of the DNN, or of the coherent model's.
        widths: features of every subdomain.
        num_classes: K.
    """
    inputs, seed = sum(widths), team.config.seed
    bias, rest = initial_rest(settings, inputs, num_classes, seed)
    blocks = {s: initial_block(len(bias), widths[s], inputs, seed, subdomain=s) for s in team.placement.subdomains}
    return ShardedDNN(blocks, bias, rest, team.reduction())
