"""Muon: steps of convolution filters are orthogonal matrices; everything else takes steps of SGD.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), in the form of the CIFAR-10 speed
records (arXiv 2404.00498 and its code): three Newton-Schulz iterations, and filters whose norm is fixed.
torch.optim.Muon takes matrices only, and torch has it from 2.9 on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim.sgd import sgd

_ITERATIONS = 3
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """One optimizer for filters and all else, with Nesterov momentum for both.

    Args:
        groups: param groups of torch's optimizers with ``lr`` and, of filters, ``filters``: the number of axes before
            a filter bank (out, in, ...): 0, or 1 where networks are stacked. Other groups take steps of SGD.
        momentum: of both.
        weight_decay: an L2 term in the gradient of what takes steps of SGD.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay, "filters": None})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of all parameters that have a gradient."""
        for group in self.param_groups:
            parameters: list[torch.Tensor] = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["filters"] is None:
                self._sgd(parameters, group)
            else:
                for p in parameters:
                    self._muon(p, group)

    def _sgd(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        buffers = [self.state[p].get("momentum_buffer") for p in parameters]
        sgd(
            parameters,
            [p.grad for p in parameters],  # type: ignore[misc]  # those that have one
            buffers,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=group["momentum"] > 0,
            maximize=False,
            fused=True,
        )
        for p, buffer in zip(parameters, buffers, strict=True):
            if buffer is not None:
                self.state[p]["momentum_buffer"] = buffer

    def _muon(self, p: torch.Tensor, group: dict[str, Any]) -> None:
        assert p.grad is not None
        momentum, axes = group["momentum"], group["filters"]
        gradient, state = p.grad, self.state[p]
        if momentum:
            buffer = state.setdefault("momentum_buffer", torch.zeros_like(p))
            buffer.mul_(momentum).add_(gradient)
            gradient = gradient.add(buffer, alpha=momentum)
        matrices = gradient.flatten(axes + 1).float()
        norms = p.flatten(axes).norm(dim=-1).view(*p.shape[:axes], *[1] * (p.ndim - axes))
        p.mul_(p.shape[axes] ** 0.5 / torch.where(norms == 0, 1, norms))  # parameters that are 0 have no direction
        p.add_(orthogonal(matrices).view(gradient.shape).to(p.dtype), alpha=-group["lr"])


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (..., m, n) with their singular values brought near to 1, by Newton-Schulz iterations."""
    a, b, c = _COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + _EPSILON)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: torch.Tensor = x if wide else x.mT
    return result
