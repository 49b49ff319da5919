"""Problems that a network of a few units learns in a moment, and a team of one rank to work on them."""

from __future__ import annotations

import torch
from torch import nn

from hpcdd.config.schema import Config
from hpcdd.data.samples import Samples
from hpcdd.decomposition import rank_layout
from hpcdd.mpi import communicator
from hpcdd.parallel.batch_shards import Flag
from hpcdd.parallel.team import Team, form_team


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


def one_knows(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of three CNNs for four classes: CNN 1 hints at the class, the others are loud and know nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (n,), generator=generator)
    logits = 3 * torch.randn(n, 3, 4, generator=generator)
    logits[:, 1] = 0.3 * torch.randn(n, 4, generator=generator)
    logits[torch.arange(n), 1, labels] += 1.0
    return logits, labels


def by_subdomain(logits: torch.Tensor) -> dict[int, torch.Tensor]:
    """(n, S, K) as the ranks have it."""
    return dict(enumerate(logits.unbind(1)))


def team_of_one(subdomains: int, config: Config | None = None) -> Team:
    world = communicator.world()
    team = form_team(world, rank_layout.build(world, subdomains, "cpu"), config or Config(), Flag())
    assert team is not None
    return team
