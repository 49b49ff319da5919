"""A random stream for each subdomain's network within one training.

Dropout draws from torch's global state. Where a rank trains several CNNs as one model, each draws from its own
stream, so that what it draws does not depend on which other CNNs the rank has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from ..core.seeding import seed_of


class RandomStreams:
    """Switches torch's global random state whenever one of the networks computes; a context manager.

    Args:
        networks: by subdomain.
        device: on which they draw.
        generators: by subdomain, those from which other networks draw, in place of the global state.
    """

    def __init__(
        self,
        networks: Mapping[int, nn.Module],
        device: torch.device,
        generators: Mapping[int, torch.Generator] | None = None,
    ) -> None:
        self._networks, self._generators = dict(networks), dict(generators or {})
        self._device = device
        self._states: dict[int, torch.Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Self:
        for subdomain, network in self._networks.items():

            def before(module: nn.Module, _inputs: Any, subdomain: int = subdomain) -> None:
                if module.training:
                    self._set(self._states[subdomain])

            def after(module: nn.Module, _inputs: Any, _output: Any, subdomain: int = subdomain) -> None:
                if module.training:
                    self._states[subdomain] = self._get()

            self._handles += [network.register_forward_pre_hook(before), network.register_forward_hook(after)]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def begin(self, seed: int, purpose: str, epoch: int) -> None:
        """Starts all streams anew for an epoch."""
        for subdomain in self._networks:
            torch.manual_seed(seed_of(seed, purpose, subdomain=subdomain, epoch=epoch))
            self._states[subdomain] = self._get()
        for subdomain, generator in self._generators.items():
            generator.manual_seed(seed_of(seed, purpose, subdomain=subdomain, epoch=epoch))

    @property
    def states(self) -> dict[str, torch.Tensor]:
        """By subdomain (as text) its random state, uint8."""
        drawn = {subdomain: generator.get_state() for subdomain, generator in self._generators.items()}
        return {str(subdomain): state for subdomain, state in (self._states | drawn).items()}

    def restore(self, states: Mapping[str, torch.Tensor]) -> None:
        """Makes them as :attr:`states` was."""
        for subdomain, state in states.items():
            if (generator := self._generators.get(int(subdomain))) is not None:
                generator.set_state(state)
            else:
                self._states[int(subdomain)] = state

    def _get(self) -> torch.Tensor:
        return torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else torch.get_rng_state()

    def _set(self, state: torch.Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)
