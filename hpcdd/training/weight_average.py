"""Exponential moving average of a network's parameters and buffers, which is evaluated and kept in their place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class WeightAverage:
    """The average over the steps of a training; no message: ranks with the same parameters have the same average.

    Attributes:
        state: parameters and floating-point buffers by name; empty without an average, and before the first step.

    Args:
        decay: part of the average that stays in each step; in the first steps less, (1 + t) / (10 + t) behind t steps,
            so that the initial parameters are soon forgotten. 0: there is no average.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self.state: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def update(self, network: nn.Module, steps: int) -> None:
        """Averages the parameters as they are behind that many steps."""
        if not self._decay:
            return
        now = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        if not self.state:
            self.state = {name: value.clone() for name, value in now.items()}
        decay = min(self._decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_([self.state[name] for name in now], list(now.values()), 1 - decay)

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Continues with the ``state`` of an earlier job."""
        self.state = state

    @contextlib.contextmanager
    def shown(self, network: nn.Module) -> Iterator[None]:
        """Inside the ``with`` block the network has the average's values; behind it its own again.

        What becomes of its buffers inside is the average's.
        """
        if not self.state:
            yield
            return
        trained = {name: value.clone() for name, value in network.state_dict().items()}
        self.into(network)
        try:
            yield
        finally:
            averaged = network.state_dict()
            self.state = {name: averaged[name].clone() for name in self.state}
            network.load_state_dict(trained)

    def into(self, network: nn.Module) -> None:
        """Gives the network the average's values for good."""
        if self.state:
            network.load_state_dict(self.state, strict=False)
