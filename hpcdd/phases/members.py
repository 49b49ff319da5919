"""CNNs that are trained together, one by one: what each brings, and what of the common state is its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ..checkpoints.keeper import NoKeeper
from ..data.samples import AnySamples
from ..models.stack import Stack
from .state import Tensors, of_parameters


@dataclass(frozen=True)
class Member:
    """One of the CNNs.

    Attributes:
        subdomain: s.
        network: of hpcdd's own families, on the samples' device; trained in place.
        training, validation: its splits.
        keeper: of its checkpoints.
    """

    subdomain: int
    network: nn.Module
    training: AnySamples
    validation: AnySamples | None
    keeper: NoKeeper


@dataclass(frozen=True)
class DrawsOfOne:
    """The random stream of one of the CNNs.

    Attributes:
        subdomain: s, as text.
        generator: from which it draws.
    """

    subdomain: str
    generator: torch.Generator

    @property
    def states(self) -> Tensors:
        """See :class:`hpcdd.phases.state.Draws`."""
        return {self.subdomain: self.generator.get_state()}

    def restore(self, states: Mapping[str, torch.Tensor]) -> None:
        """See :class:`hpcdd.phases.state.Draws`."""
        self.generator.set_state(states[self.subdomain])


@dataclass(frozen=True)
class SliceOfMemory:
    """What the stack's optimizer remembers of one of the CNNs.

    Attributes:
        stack: of all.
        number: of the CNN in it.
        optimizer: of the stack's leaves.
    """

    stack: Stack
    number: int
    optimizer: torch.optim.Optimizer

    def tensors(self) -> Tensors:
        """See :class:`hpcdd.phases.state.Memory`."""
        found: Tensors = {}
        for name, leaf in zip(self.stack.names, self.stack.leaves, strict=True):
            for kind, value in self.optimizer.state.get(leaf, {}).items():
                if value is not None:
                    found[f"{kind}/{name}"] = value[self.number] if value.shape == leaf.shape else value
        return found

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """See :class:`hpcdd.phases.state.Memory`."""
        leaves = dict(zip(self.stack.names, self.stack.leaves, strict=True))
        for kind, name, value in of_parameters(tensors):
            leaf = leaves[name]
            state = self.optimizer.state[leaf]
            if value.shape == leaf.shape[1:]:
                state.setdefault(kind, torch.zeros_like(leaf, requires_grad=False))[self.number] = value
            else:  # the number of steps, which all have done
                state[kind] = value.to(leaf.device, copy=True)
