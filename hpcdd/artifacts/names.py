"""The trainings and the classification strategies of a run: their names in files and in print."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args


@dataclass(frozen=True)
class Training:
    """A phase in which something is trained.

    Attributes:
        section: of the configuration, with its settings.
        network: what is trained.
    """

    section: str
    network: str


TRAININGS = {
    "local": Training("local", "the local CNN"),
    "dnn": Training("aggregation", "the DNN"),
    "coherent_transfer": Training("coherent", "the coherent model (transfer)"),
    "coherent_scratch": Training("coherent", "the coherent model (scratch)"),
    "global": Training("baseline", "the global CNN"),
}
"""By phase, in the order of a run."""

StrategyName = Literal[
    "local", "average", "majority", "log_pool", "dnn", "coherent_transfer", "coherent_scratch", "global"
]


@dataclass(frozen=True)
class Strategy:
    """A way to classify.

    Attributes:
        title: in full.
        heading: for a column of a table.
        phases: what a run does to have it.
    """

    title: str
    heading: str
    phases: tuple[str, ...]


STRATEGIES: dict[str, Strategy] = {
    "local": Strategy("local CNNs, mean", "local CNNs", ("local",)),
    "average": Strategy("average probability", "average", ("local", "gather")),
    "majority": Strategy("majority vote", "majority vote", ("local", "gather")),
    "log_pool": Strategy("log-opinion pool", "log-opinion pool", ("local", "gather")),
    "dnn": Strategy("DNN", "DNN", ("local", "gather", "dnn")),
    "coherent_transfer": Strategy(
        "coherent model, by transfer", "coherent, transfer", ("local", "gather", "dnn", "coherent_transfer")
    ),
    "coherent_scratch": Strategy("coherent model, from scratch", "coherent, scratch", ("coherent_scratch",)),
    "global": Strategy("global CNN", "global CNN", ("global",)),
}
"""By name; ``local`` is the mean of the local CNNs, each on its own."""
STRATEGY_NAMES: tuple[StrategyName, ...] = get_args(StrategyName)
CLASSIFIERS: tuple[str, ...] = STRATEGY_NAMES[1:]
"""Strategies that predict one class for each sample."""


def coherent_phase(start: str) -> str:
    """The phase, and strategy, of the coherent model by a start: ``transfer`` or ``scratch``."""
    return f"coherent_{start}"


def final(names: Collection[str]) -> str:
    """The final strategy of a model: the last one to which its training leads."""
    return next(name for name in ("coherent_transfer", "coherent_scratch", "dnn") if name in names)
