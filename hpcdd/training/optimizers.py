"""Optimizer, learning rate and precision as the configuration names them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from ..config.schema import Config, TrainingSettings
from ..core.errors import UserError
from ..models.batched_networks import BatchedNetworks

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)


def eager(kind: type[Kind]) -> type[Kind]:
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
    sliced = {parameter for stack in stacks for parameter in stack.where}
    parameters = [p for stack in stacks for p in stack.parameters()]
    parameters += [p for p in network.parameters() if p not in sliced]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return eager(torch.optim.SGD)(parameters, rate, momentum, weight_decay=decay, nesterov=momentum > 0, fused=True)
    kind: type[torch.optim.Adam] = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return eager(kind)(parameters, rate, weight_decay=decay, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The course of the learning rate over ``steps`` steps: a function of the number of the step alone.

    The highest rate is ``settings.learning_rate``, of one_cycle to within 20% (the peak may lie between two steps).
    """
    schedulers = torch.optim.lr_scheduler
    if settings.schedule == "one_cycle" and steps > 1:  # the only step would be the end of the fall
        return schedulers.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, cycle_momentum=False)
    if settings.schedule == "cosine":
        return schedulers.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    return schedulers.LambdaLR(optimizer, lambda _: 1.0)


def advance(schedule: torch.optim.lr_scheduler.LRScheduler, steps: int) -> None:
    """Puts a fresh schedule to where it is after that many steps."""
    if steps:
        schedule.load_state_dict({**schedule.state_dict(), "last_epoch": steps - 1, "_step_count": steps + 1})
        schedule.step()


def check_precisions(config: Config, sections: Sequence[str], device: str) -> None:
    """:func:`check_precision` of some sections of a configuration."""
    for section in sections:
        check_precision(section, getattr(config, section).precision, device)


def check_precision(section: str, precision: str, device: str) -> None:
    """Refuses bf16 where the device would only imitate it.

    Args:
        section: of the configuration, for the message.
        precision: that it asks for.
        device: of this rank.

    Raises:
        UserError: naming the device.
    """
    if precision != "bf16":
        return
    if device == "cpu":
        supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    else:
        supported = torch.cuda.get_device_capability(device) >= (8, 0)
    if not supported:
        raise UserError(f"{section}.precision is 'bf16', but {device} does not compute in bfloat16; use fp32")
