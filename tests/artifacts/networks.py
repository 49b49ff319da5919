"""All networks of a model file at once, for tests that compare them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hpcdd.artifacts.model_file import ModelFile, open_model


@dataclass(frozen=True)
class Networks:
    """What a model file holds.

    Attributes:
        file: its description; closed.
        local: the local CNNs.
        of_strategies: by strategy, of those that have a network of their own.
    """

    file: ModelFile
    local: list[nn.Module]
    of_strategies: dict[str, nn.Module]


def read_networks(path: Path) -> Networks:
    """Builds all networks and loads their parameters."""
    with open_model(path) as file:
        local = [file.local_cnn(s) for s in range(len(file.subdomains))]
        networks = {strategy: file.network(strategy) for strategy in file.strategies}
        return Networks(file, local, {strategy: net for strategy, net in networks.items() if net is not None})
