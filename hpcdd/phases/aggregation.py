"""Aggregation: the DNN learns to combine the local outputs.

arXiv 2302.06564 trains a dense network (DNN) that takes the local CNNs' probability distributions and gives the
global prediction, and compares it with average probability and majority vote (:mod:`hpcdd.models.aggregators`).
Root trains it on the gathered logits while the others wait; or all ranks train it distributed, where the logits are,
for problems whose logits don't fit on one rank.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..config.schema import Config
from ..data.samples import Samples, SideBySide
from ..models.dnn import DNN, create_dnn, features_of, initial_block, initial_rest
from ..parallel.batch_shards import BatchSharing, broadcast_state
from ..parallel.sharded_coherent import ShardedDNN
from ..parallel.team import Team
from ..training.checkpoints.manager import NullCheckpointManager
from ..training.replica_checks import checked
from ..training.status import Hooks
from ..training.trainer import train

Splits = Mapping[str, torch.Tensor]


def train_dnn(
    config: Config, logits: Splits, labels: Splits, hooks: Hooks, manager: NullCheckpointManager | None = None
) -> DNN:
    """Trains the DNN on root's processor; no messages.

    Args:
        config: the run's configuration.
        logits: by split, float32 (n, S, K).
        labels: by split, int64 (n,).
        hooks: called while it trains.
        manager: of its checkpoints.

    Returns:
        The DNN, in evaluation mode.

    Raises:
        DivergedError: the loss is NaN or infinite.
        StopRequest: from ``hooks.step``.
    """
    _, num_subdomains, num_classes = logits["train"].shape
    dnn = create_dnn(config.aggregation, [num_classes] * num_subdomains, num_classes, config.seed)

    def samples(split: str) -> Samples:
        return Samples(features_of(logits[split], config.aggregation.features).flatten(1), labels[split])

    validation = samples("validation") if "validation" in logits else None
    train(
        dnn,
        samples("train"),
        validation,
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
    logits: Mapping[int, Splits],
    labels: Splits,
    num_classes: int,
    hooks: Hooks,
    manager: NullCheckpointManager | None = None,
) -> ShardedDNN:
    """Collective over the workers: trains the DNN where the local outputs are; one message per step, no gather.

    It begins with the same parameters and visits the same batches as :func:`train_dnn`.

    Args:
        config: the run's configuration.
        team: of this rank.
        logits: by subdomain of this rank and split, float32 (n, K).
        labels: by split, int64 (n,).
        num_classes: K.
        hooks: called while it trains.
        manager: of its checkpoints.

    Returns:
        This rank's part of the DNN, in evaluation mode.

    Raises:
        DivergedError: the loss is NaN or infinite.
        StopRequest: on all ranks at the same step.
    """
    dnn = fresh_dnn(config, team, [num_classes] * team.layout.num_subdomains, num_classes)

    def samples(split: str) -> SideBySide:
        return SideBySide(
            [
                Samples(features_of(splits[split], config.aggregation.features), labels[split])
                for splits in logits.values()
            ]
        )

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


def broadcast_dnn(team: Team, dnn: ShardedDNN) -> None:
    """Collective over the workers: every replica copies the first one's part of a DNN.

    They have trained it by themselves, to the same bits only on processors that compute identically.
    """
    if team.replicas.size > 1:
        broadcast_state(team.replicas, dnn)


def fresh_dnn(config: Config, team: Team, widths: list[int], num_classes: int) -> ShardedDNN:
    """This rank's part of a DNN with initial parameters; no message.

    Args:
        config: the run's configuration.
        team: of this rank.
        widths: features of every subdomain.
        num_classes: K.
    """
    inputs = sum(widths)
    bias, rest = initial_rest(config.aggregation, inputs, num_classes, config.seed)
    blocks = {
        s: initial_block(len(bias), widths[s], inputs, config.seed, subdomain=s) for s in team.placement.subdomains
    }
    return ShardedDNN(blocks, bias, rest, team.reduction())
