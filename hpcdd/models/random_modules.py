"""Where a CNN draws random numbers in training mode: in dropout modules, which ranks can share, or elsewhere."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode

AnyDropout = _DropoutNd
"""Dropout modules of every kind: what they draw belongs to one row of the batch each, whatever the rows hold."""


def scale_dropout(network: nn.Module, factor: float) -> None:
    """Multiplies the rates of all dropout modules, in place."""
    for module in network.modules():
        if isinstance(module, AnyDropout):
            module.p *= factor


def foreign_draws(network: nn.Module, images: torch.Tensor) -> list[str]:
    """Finds what draws random numbers in ``network`` outside of dropout modules, by one forward pass.

    Args:
        network: put into training mode, its dropout modules into evaluation mode.
        images: a batch (n, C, *spatial); n should differ from the length of every other axis.

    Returns:
        Names of the functions, and of dropout modules whose input does not have n rows.
    """
    draws: set[str] = set()
    network.train()
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, AnyDropout):

            def check(_: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
                if inputs and len(inputs[0]) != len(images):
                    draws.add(f"{name} on {len(inputs[0])} rows of {len(images)} samples")

            handles.append(module.eval().register_forward_pre_hook(check))
    before = _other_states()
    with torch.no_grad(), _Draws(draws):
        network(images)
    draws.update(name for name, state in _other_states().items() if state != before[name])
    for handle in handles:
        handle.remove()
    return sorted(draws)


def _other_states() -> dict[str, object]:
    """States of generators that are not PyTorch's."""
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - the user's code may draw from it
    state = legacy["state"]
    return {"Python's random": random.getstate(), "numpy.random": (state["key"].tobytes(), state["pos"])}


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records which of PyTorch's functions draw random numbers: they carry a tag."""

    def __init__(self, draws: set[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._draws = draws

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self._draws.add(f"torch's {func.overloadpacket.__name__}")
        return func(*args, **(kwargs or {}))
