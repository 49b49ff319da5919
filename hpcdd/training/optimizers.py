"""Optimizer and learning rate as the configuration names them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from ..config.schema import Kind, TrainingSettings
from ..models.batched_networks import BatchedNetworks
from .muon import Muon

Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)


def eager(kind: type[Optimizer]) -> type[Optimizer]:
    """An optimizer of torch without what serves torch.compile, which hpcdd does not use.

    Torch wraps these methods only for its compiler, and the wrappers import that at the first call: a second of
    CPU time and a hundred megabytes on every rank. Where a version of torch has no wrapper, its method is taken
    as it is.

    Args:
        kind: class of torch.optim. Unchanged; its hooks and its profiling come with its constructor, as ever.

    Returns:
        A class of the same name whose steps are the same, bit by bit.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    methods["step"] = torch.no_grad()(methods["step"])  # all that the wrapper does beside
    return type(kind.__name__, (kind,), methods)


def make_optimizer(
    network: nn.Module, settings: TrainingSettings, stacks: Sequence[BatchedNetworks] = ()
) -> torch.optim.Optimizer:
    """The optimizer that the settings name, in its fused form, on the network's parameters.

    Args:
        network: what is trained.
        settings: of the training.
        stacks: whose leaves stand for parameters in the network.
    """
    groups, decay, momentum = _groups(network, settings, stacks), settings.weight_decay, settings.momentum
    if settings.optimizer == "muon":
        return eager(Muon)(groups, momentum, decay)
    if settings.optimizer == "sgd":
        return eager(torch.optim.SGD)(groups, momentum=momentum, weight_decay=decay, nesterov=momentum > 0, fused=True)
    kind: type[torch.optim.Adam] = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return eager(kind)(groups, weight_decay=decay, fused=True)


def _groups(network: nn.Module, settings: TrainingSettings, stacks: Sequence[BatchedNetworks]) -> list[dict[str, Any]]:
    """The parameters by what their steps are: an optimizer's groups, with their learning rates."""
    stacks = [network] if isinstance(network, BatchedNetworks) else stacks
    stacked = {p for stack in stacks for p in stack.parameters()}
    sliced = {p for stack in stacks for p in stack.where}
    dnn = getattr(network, "dnn", None)
    of_dnn = set(dnn.parameters()) if isinstance(dnn, nn.Module) else set()
    groups: dict[tuple[float, int | None], list[nn.Parameter]] = {}
    for p in dict.fromkeys([*(p for stack in stacks for p in stack.parameters()), *network.parameters()]):
        if p in sliced:
            continue
        leading = int(p in stacked)  # the axis of the stacked networks
        kind = "dnn" if p in of_dnn else kind_of(p.ndim - leading)
        orthogonal = settings.optimizer == "muon" and kind == "filter"
        groups.setdefault((settings.rate_of(kind), leading if orthogonal else None), []).append(p)
    made = [
        {"params": parameters, "lr": rate} | ({} if axes is None else {"filters": axes})
        for (rate, axes), parameters in groups.items()
    ]
    return sorted(made, key=lambda group: group["lr"] != settings.learning_rate)  # the first one's rate is recorded


def kind_of(axes: int) -> Kind:
    """What a CNN's parameter with that many axes is: a bias (or of batch norm), of a dense layer, or filters."""
    return "bias" if axes < 2 else "dense" if axes == 2 else "filter"


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The course of the learning rate over ``steps`` steps: a function of the number of the step alone.

    The highest rate is ``settings.learning_rate``, of one_cycle to within 20% (the peak may lie between two steps).
    """
    schedulers = torch.optim.lr_scheduler
    if settings.schedule == "one_cycle" and steps > 1:  # the only step would be the end of the fall
        peaks = [group["lr"] for group in optimizer.param_groups]
        return schedulers.OneCycleLR(optimizer, peaks, total_steps=steps, cycle_momentum=False)
    if settings.schedule == "linear":
        (first, last), peak = settings.schedule_ends, round(settings.warm_up * steps)
        return schedulers.LambdaLR(
            optimizer,
            lambda step: (
                first + (1 - first) * step / peak
                if step < peak
                else 1 - (1 - last) * (step - peak) / max(1, steps - peak)
            ),
        )
    if settings.schedule == "cosine":
        return schedulers.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    return schedulers.LambdaLR(optimizer, lambda _: 1.0)


def advance(schedule: torch.optim.lr_scheduler.LRScheduler, steps: int) -> None:
    """Puts a fresh schedule to where it is after that many steps."""
    if steps:
        schedule.load_state_dict({**schedule.state_dict(), "last_epoch": steps - 1, "_step_count": steps + 1})
        schedule.step()
