"""Baseline: the global CNN on whole images, data-parallel over the same ranks, to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from ..core.seeding import seed_of
from ..data.problem import Problem
from ..data.samples import Subimages, channels_last
from ..models.registry import create
from ..parallel.batch_shards import broadcast_state
from ..parallel.team import Team
from ..training.checkpoints.manager import NullCheckpointManager
from ..training.replica_checks import checked
from ..training.split_evaluation import logits_of
from ..training.status import Hooks
from ..training.trainer import train
from .local import with_data


def train_global_cnn(
    team: Team,
    problem: Problem,
    samples: Mapping[str, Subimages],
    hooks: Hooks,
    manager: NullCheckpointManager | None = None,
) -> tuple[nn.Module, int]:
    """Collective over the workers: each trains on its shard of every batch; gradients are averaged.

    Args:
        team: of this rank.
        problem: what is to be solved.
        samples: whole images by split, on this rank's device.
        hooks: called while it trains.
        manager: of its checkpoints.

    Returns:
        The trained CNN, the same on every worker, in evaluation mode; and the number of steps.

    Raises:
        DivergedError: the loss is NaN or infinite.
        DriftError: copies of the same parameters differ between ranks.
        StopRequest: on all ranks at the same step.
    """
    settings, sharing = team.config.baseline, team.sharing(team.workers)
    network = create_global_cnn(team, problem)
    with team.workers.phase("setup"):
        broadcast_state(team.workers, network)  # the same already, unless the user's own factory draws from elsewhere
    with_data(network.to(team.placement.device), samples["train"], team.config.seed)
    steps = train(
        network,
        samples["train"],
        samples.get("validation"),
        settings,
        seed=team.config.seed,
        phase="global",
        sharing=sharing,
        hooks=checked(hooks, team.workers, {"the global CNN": list(network.parameters())}, team.placement.arithmetic),
        manager=manager,
    )
    return network.eval(), steps


def create_global_cnn(team: Team, problem: Problem) -> nn.Module:
    """The global CNN with its initial parameters, on the CPU: the same on every rank."""
    torch.manual_seed(seed_of(team.config.seed, "initial parameters"))
    shape = problem.info.image_shape
    network = create(problem.model, shape, problem.info.num_classes, problem.widths.global_width)
    network.to(memory_format=channels_last(len(shape) - 1))  # type: ignore[call-overload]  # torch's stub lacks it
    return network


def global_accuracies(
    team: Team,
    problem: Problem,
    network: nn.Module,
    samples: Mapping[str, Subimages],
    step: Callable[[], None],
    attribution_split: str = "test",
) -> tuple[dict[str, float], torch.Tensor]:
    """Collective over the workers; arguments as for :func:`hpcdd.phases.coherent.evaluate_coherent`.

    Returns:
        The global CNN's accuracy by split; and its logits on ``attribution_split``, float32 (n, K) on the CPU.
    """
    sharing = team.sharing(team.workers)
    logits = {
        split: logits_of(network, images, team.config.baseline.evaluation_batch, step, sharing)
        for split, images in samples.items()
    }
    correct = {split: values.argmax(1) == problem.labels(split) for split, values in logits.items()}
    return {split: float(values.double().mean()) for split, values in correct.items()}, logits[attribution_split]
