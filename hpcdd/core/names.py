"""The phases, splits and classification strategies of a run: their names in files and in print."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

PhaseName = Literal[
    "start", "read", "restore", "local", "gather", "dnn", "coherent_transfer", "coherent_scratch", "global",
    "evaluation", "examination", "record",
]  # fmt: skip
"""A phase of a run, at whose end all ranks agree."""
PartName = Literal["agreement", "checkpoint", "evaluation", "setup", "telemetry"]
"""What is counted apart within a phase: the agreement at its end, reading and writing checkpoints, the evaluation at
the end of an epoch, equal networks on all ranks before a training, and progress on its way to root."""
CountedName = PhaseName | PartName
"""What messages are counted under."""
TrainingName = Literal["local", "dnn", "coherent_transfer", "coherent_scratch", "global"]
"""A phase in which something is trained."""
Start = Literal["transfer", "scratch"]
"""Of the coherent model: from the trained local CNNs, or from random parameters."""
STARTS: tuple[Start, ...] = get_args(Start)

PHASES: dict[PhaseName, str] = {
    "start": "start-up",  # from the launch until the run directory is open
    "read": "reading",  # of each rank's samples; of whole images before the global CNN
    "restore": "restoring",  # the DNN that an earlier job has trained and evaluated
    "local": "the local CNNs",
    "gather": "gather",  # of the local outputs to root
    "dnn": "the DNN",
    "coherent_transfer": "the coherent model (transfer)",
    "coherent_scratch": "the coherent model (scratch)",
    "global": "the global CNN",
    "evaluation": "evaluation",  # of all splits, once a training is over
    "examination": "attribution",  # of the predictions that were evaluated
    "record": "records",  # model.h5 and decisions.h5
}
"""In print, in the order of a run."""


@dataclass(frozen=True)
class Training:
    """A phase in which something is trained.

    Attributes:
        section: of the configuration, with its settings.
        network: what is trained.
    """

    section: str
    network: str


TRAININGS: dict[TrainingName, Training] = {
    "local": Training("local", "the local CNN"),
    "dnn": Training("aggregation", PHASES["dnn"]),
    "coherent_transfer": Training("coherent", PHASES["coherent_transfer"]),
    "coherent_scratch": Training("coherent", PHASES["coherent_scratch"]),
    "global": Training("baseline", PHASES["global"]),
}
"""In the order of a run."""

SPLITS = ("train", "validation", "test")

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
    phases: tuple[PhaseName, ...]


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


def coherent_phase(start: Start) -> Literal["coherent_transfer", "coherent_scratch"]:
    """The phase, and strategy, of the coherent model by its start."""
    return "coherent_transfer" if start == "transfer" else "coherent_scratch"


def final(names: Collection[str]) -> str:
    """The final strategy of a model: the last one to which its training leads."""
    return next(name for name in ("coherent_transfer", "coherent_scratch", "dnn") if name in names)
