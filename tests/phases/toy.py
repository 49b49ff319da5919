"""Problems that a network of a few units learns in a moment."""

from __future__ import annotations

import torch
from torch import nn

from hpcdd.data.samples import Samples


def ring(n: int, seed: int = 0) -> Samples:
    """Points in the plane, inside the unit circle or outside: not separable by a line."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 2, generator=generator)
    return Samples(points, (points.norm(dim=1) > 1.18).long())


def small(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 2))


def parameters(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()
