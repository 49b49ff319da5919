"""The whole state of a training between two steps: all that a checkpoint needs, and how it is given back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ..config.schema import TrainingSettings
from ..parallel.batch_shards import BatchSharing
from .checkpoints.manager import NullCheckpointManager
from .checkpoints.snapshot import Position, Snapshot
from .random_streams import RandomStreams
from .status import RunningMetrics, Status
from .weight_average import WeightAverage

Tensors = dict[str, torch.Tensor]


class EarlyStopping:
    """Early stopping: remembers the parameters of the best epoch, and how long ago that was.

    Attributes:
        best: validation accuracy.
        waited: epochs since.
        state: parameters and buffers then.
    """

    def __init__(self, epochs: int | None) -> None:
        self._epochs = epochs
        self.best = -math.inf
        self.waited = 0
        self.state: Tensors = {}

    @property
    def exhausted(self) -> bool:
        """Whether the training is over."""
        return self._epochs is not None and self.waited >= self._epochs

    def observe(self, accuracy: float | None, network: nn.Module) -> None:
        """Compares the validation accuracy of one more epoch with the best, and copies the network if it is better."""
        if self._epochs is None or accuracy is None:
            return
        if accuracy > self.best:
            self.best, self.waited = accuracy, 0
            self.state = {name: value.clone() for name, value in network.state_dict().items()}
        else:
            self.waited += 1

    def load_best(self, network: nn.Module) -> None:
        """Gives the network the best epoch's parameters back."""
        if self.state:
            network.load_state_dict(self.state)

    @property
    def facts(self) -> list[float]:
        """What a checkpoint keeps besides ``state``: plain data."""
        return [self.best, self.waited]

    def restore(self, facts: tuple[float, int], state: Tensors) -> None:
        """Continues where :attr:`facts` and ``state`` were as given."""
        (self.best, self.waited), self.state = facts, state


@dataclass(frozen=True)
class State:
    """What a training consists of. Order and augmentation of samples and the learning rate follow from its position.

    Attributes:
        memory: of its optimizer.
        network, streams, running, early_stopping, sharing: those of :func:`hpcdd.training.trainer.train`.
        average: of its parameters.
    """

    network: nn.Module
    memory: OptimizerMemory
    streams: RandomStreams
    running: RunningMetrics
    early_stopping: EarlyStopping
    sharing: BatchSharing
    average: WeightAverage

    def snapshot(self) -> Snapshot:
        """A copy of it; collective over the ranks that share batches."""
        running, early_stopping = self.running, self.early_stopping
        tensors = {
            **network_tensors("network", self.network.state_dict()),
            **network_tensors("best", early_stopping.state),
            **network_tensors("average", self.average.state),
            **self.memory.tensors(),
            **network_tensors("stream", self.streams.states),
        }
        facts = running.facts(self.sharing.sum(running.sums))
        facts["patience"] = early_stopping.facts
        return Snapshot(Position(running.epoch, running.steps), tensors, facts)

    def restore(self, saved: Snapshot) -> None:
        """Makes everything as it was; no message."""
        self.network.load_state_dict(named("network", saved.tensors))
        self.memory.restore(saved.tensors)
        self.streams.restore(named("stream", saved.tensors))
        counts = self.sharing.comm is None or self.sharing.comm.is_root
        self.running.restore(*saved.position, saved.facts, counts=counts)
        self.early_stopping.restore(saved.facts["patience"], named("best", saved.tensors))
        self.average.restore(named("average", saved.tensors))


def finished(network: nn.Module, settings: TrainingSettings, manager: NullCheckpointManager) -> list[Status] | None:
    """Gives a network the parameters of a training that an earlier job has brought to its end.

    Collective over the manager's ranks.

    Args:
        network: of the same shape; unchanged where nothing is found.
        settings: the phase's section of the configuration.
        manager: of the training's checkpoints.

    Returns:
        The ends of its epochs; None where the training has not come to its end.
    """
    saved = manager.load()
    if saved is None:
        return None
    early_stopping = EarlyStopping(settings.early_stopping)
    early_stopping.restore(saved.facts["patience"], named("best", saved.tensors))
    if saved.position.epoch < settings.epochs and not early_stopping.exhausted:
        return None
    network.load_state_dict(named("network", saved.tensors) | named("average", saved.tensors))
    early_stopping.load_best(network)
    return [Status(**status) for status in saved.facts["history"]]


def network_tensors(kind: str, state: Mapping[str, torch.Tensor]) -> Tensors:
    """A ``state_dict`` by KIND/NAME."""
    return {f"{kind}/{name}": tensor for name, tensor in state.items()}


def named(kind: str, tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The tensors of one kind by name: the reverse of :func:`network_tensors`."""
    return {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{kind}/")}


@dataclass(frozen=True)
class OptimizerMemory:
    """What an optimizer remembers of a network's parameters.

    Attributes:
        network, optimizer: see there.
        where: for parameters that are slices of another one, which the optimizer has instead, that one and the number
            of the slice (see :class:`hpcdd.models.batched_networks.BatchedNetworks`).
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    where: Mapping[nn.Parameter, tuple[nn.Parameter, int]] = field(default_factory=dict)

    def tensors(self) -> Tensors:
        """By KIND/NAME, e.g. ``exp_avg/0.weight``."""
        tensors: Tensors = {}
        for name, parameter in self.network.named_parameters():
            whole, number = self.where.get(parameter, (parameter, None))
            for kind, value in self.optimizer.state.get(whole, {}).items():
                if value is not None:  # momentum before the first step
                    sliced = number is not None and value.shape == whole.shape
                    tensors[f"{kind}/{name}"] = value[number] if sliced else value
        return tensors

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes what :meth:`tensors` gave; kinds that are not an optimizer's are left out."""
        parameters = dict(self.network.named_parameters())
        for key, value in tensors.items():
            kind, _, name = key.partition("/")
            if kind in ("network", "best", "average", "stream") or name not in parameters:
                continue
            parameter = parameters[name]
            whole, number = self.where.get(parameter, (parameter, None))
            state = self.optimizer.state[whole]
            if value.shape == parameter.shape and (value.ndim or kind != "step"):
                # Moments lie in memory as their parameter does, or fused kernels would mix them up.
                moment = state.setdefault(kind, torch.zeros_like(whole, requires_grad=False))
                (moment if number is None else moment[number]).copy_(value)
            else:  # the number of steps
                state[kind] = value.to(whole.device, copy=True)
