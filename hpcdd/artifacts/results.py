"""results.json: the results and the cost of a run; one schema for its writer and its readers.

Accuracies are fractions of a split's samples, seconds are wall time unless they are CPU seconds, memory is in bytes. A
file may hold more than is read here: fields are added, and none is changed without another ``format``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ..config.schema import Config
from ..core.files import read_json, write_json, writing
from ..core.texts import printable
from ..data.problem import Problem
from ..decomposition.rank_layout import RankLayout
from ..mpi.traffic import Traffic
from .names import STRATEGIES

Rate = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int | float, Field(ge=0)]


class Part(BaseModel):
    """Base of all sections."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True, populate_by_name=True
    )


class Dataset(Part):
    """The data set, with the number of samples used from each split."""

    name: str
    train: PositiveInt
    validation: PositiveInt | None = None
    test: PositiveInt
    classes: PositiveInt
    class_names: list[str] = []
    image_shape: list[PositiveInt]
    """(C, *spatial)."""


class Boxes(Part):
    """The decomposition of an image."""

    grid: list[PositiveInt] | None = None
    """Subdomains along each axis; null if the boxes were given explicitly."""
    overlap: list[NonNegativeInt] = []
    boxes: list[list[list[NonNegativeInt]]]
    """For each subdomain except the coarse one: the first pixel along each axis, and one past the last."""
    coarse: list[PositiveInt] | None = None
    """Block of pixels that the coarse subdomain averages; null without a coarse subdomain."""


class WidthFacts(Part):
    """Widths of the CNNs."""

    of_global: PositiveInt = Field(alias="global")
    local: PositiveInt


class Parameters(Part):
    """Trainable parameters, by network."""

    of_global: NonNegativeInt = Field(alias="global")
    local: list[NonNegativeInt]
    """By subdomain."""
    dnn: NonNegativeInt
    coherent: NonNegativeInt | None = None


class Voting(Part):
    """Accuracy of local CNNs and of the rules that combine them; null where a rule was not evaluated."""

    local: list[Rate] = []
    """By subdomain, the coarse one last."""
    average: Rate | None = None
    majority: Rate | None = None
    log_pool: Rate | None = None


class Accuracy(Voting):
    """Accuracy on one split, by strategy; null for a strategy that was not trained."""

    dnn: Rate | None = None
    coherent_transfer: Rate | None = None
    coherent_transfer_parts: Voting | None = None
    """The local CNNs after the coherent phase, and the rules that combine them."""
    coherent_scratch: Rate | None = None
    coherent_scratch_parts: Voting | None = None
    of_global: Rate | None = Field(default=None, alias="global")

    def of(self, strategy: str) -> float | None:
        """Of one strategy but ``local``; None where it was not trained."""
        value: float | None = getattr(self, "of_global" if strategy == "global" else strategy)
        return value

    def parts_of(self, start: str) -> Voting | None:
        """Of the local CNNs of a coherent model, by how it started; None where it was not trained."""
        value: Voting | None = getattr(self, f"coherent_{start}_parts")
        return value


class Results(Part):
    """The content of results.json."""

    format: Literal[1] = 1
    name: str
    seed: int
    dataset: Dataset
    decomposition: Boxes
    width: WidthFacts
    parameters: Parameters
    accuracy: dict[str, Accuracy]
    """By split."""
    seconds: dict[str, NonNegativeFloat | list[NonNegativeFloat]] = {}
    """Seconds by phase, on root; those of ``local`` by subdomain."""
    core_seconds: dict[str, NonNegativeFloat]
    """CPU seconds by phase, of all ranks together."""
    communication: dict[str, dict[str, Number]] = {}
    """By phase, ``calls`` and ``bytes`` of the rank with the most; also per step, for trainings that send in each
    step."""
    bytes_read: list[NonNegativeInt] = []
    """Bytes of pixels read, by rank."""
    startup: dict[str, NonNegativeFloat] = {}
    """Seconds from the launch to the end of the first training step, by cause, on the slowest rank."""
    memory: list[NonNegativeInt] = []
    """Peak host memory in bytes, by rank."""
    gpu_memory: list[NonNegativeInt | None] = []
    """Peak GPU memory in bytes, by rank."""
    ranks: PositiveInt
    replicas: PositiveInt = 1
    hosts: PositiveInt = 1
    devices: list[str]
    """By rank."""
    threads_per_rank: PositiveInt = 1
    reused: dict[str, str] | None = None
    """By phase, the run whose result was imported."""

    @classmethod
    def read(cls, path: Path) -> Results:
        """Reads the file; names are made printable, because they may come from untrusted sources.

        Raises:
            UserError: the file can't be read, is damaged, or has another format; names the file and the field.
        """
        found = read_json(path, cls)
        return found.model_copy(
            update={"dataset": found.dataset.model_copy(update={"name": printable(found.dataset.name)})}
        )

    def content(self) -> dict[str, Any]:
        """The content as plain data."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def write(self, path: Path) -> None:
        """Writes the file.

        Raises:
            WriteError: the file can't be written.
        """
        with writing(path):
            write_json(path, self.content())

    @property
    def local(self) -> list[float]:
        """Test accuracy of the local CNN of each subimage, without the coarse subdomain."""
        return self.accuracy["test"].local[: len(self.decomposition.boxes)]

    def strategy(self, name: str, split: str = "test") -> float | None:
        """Accuracy of a strategy (for ``local``, the mean over the subimages); None if it was not trained."""
        if name == "local":
            return sum(self.local) / len(self.local) if self.local else None
        return self.accuracy[split].of(name)

    def core_seconds_of(self, name: str) -> float:
        """CPU seconds of all ranks for the phases that lead to a trained strategy."""
        return sum(self.core_seconds.get(phase, 0.0) for phase in STRATEGIES[name].phases)

    def seconds_of(self, phase: str) -> float | None:
        """Seconds of a phase on the slowest ranks (for ``local``, of the slowest CNN); None if it was not run."""
        found = self.seconds.get(phase)
        return max(found, default=0.0) if isinstance(found, list) else found


def traffic_of(ranks: Iterable[Mapping[str, Traffic]], steps: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """By phase the calls and bytes of the rank that has most, so that zero means that no rank has any.

    Args:
        ranks: of every rank its traffic by phase.
        steps: training steps of those phases whose messages are counted by step as well.
    """
    phases: dict[str, dict[str, float]] = {}
    for traffic in ranks:
        for phase, counted in traffic.items():
            most = phases.setdefault(phase, {"calls": 0, "bytes": 0})
            most["calls"] = max(most["calls"], counted.calls)
            most["bytes"] = max(most["bytes"], counted.bytes)
    for phase, number in steps.items():
        phases[phase] |= {f"{what}_per_step": phases[phase][what] / number for what in ("calls", "bytes")}
    return phases


def summed(ranks: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """By phase the sum over the ranks, and that over all phases as ``total``."""
    phases: dict[str, float] = {}
    for of_rank in ranks:
        for phase, value in of_rank.items():
            phases[phase] = phases.get(phase, 0.0) + value
    return {**phases, "total": sum(phases.values())}


def assemble(
    config: Config,
    problem: Problem,
    layout: RankLayout,
    *,
    parameters: Mapping[str, Any],
    accuracy: Mapping[str, Any],
    seconds: Mapping[str, Any],
    core_seconds: Mapping[str, float],
    communication: Mapping[str, Any],
    bytes_read: Sequence[int],
    memory: Sequence[tuple[int, int | None]],
    startup: Sequence[Mapping[str, float]],
    reused: Mapping[str, str] | None = None,
) -> Results:
    """The content of the file.

    Args:
        config, problem, layout: of the run.
        parameters: trainable ones, by network; ``local`` by subdomain.
        accuracy: by split and strategy.
        seconds: by phase; ``local`` by subdomain.
        core_seconds: CPU time by phase, of all ranks together.
        communication: from :func:`traffic_of`.
        bytes_read: bytes of pixels by rank.
        memory: by rank the most bytes in memory, of the host and of the GPU (None without one).
        startup: by rank, seconds from the launch to the end of the first training step by cause.
        reused: by phase the run whose result was taken.
    """
    info, decomposition, widths = problem.info, problem.decomposition, problem.widths
    content: dict[str, Any] = {
        "format": 1,
        "name": config.name,
        "seed": config.seed,
        "dataset": {
            "name": info.name,
            **problem.samples,
            "classes": info.num_classes,
            "class_names": list(info.class_names),
            "image_shape": list(info.image_shape),
        },
        "decomposition": {
            "grid": None if decomposition.parts is None else list(decomposition.parts),
            "overlap": list(decomposition.overlap),
            "boxes": [[list(box.start), list(box.stop)] for box in decomposition.boxes],
            "coarse": None if decomposition.coarse is None else list(decomposition.coarse),
        },
        "width": {"global": widths.global_width, "local": widths.local_width},
        "parameters": parameters,
        "accuracy": accuracy,
        "seconds": seconds,
        "core_seconds": core_seconds,
        "communication": communication,
        "bytes_read": list(bytes_read),
        "startup": {
            cause: max(of_rank.get(cause, 0.0) for of_rank in startup)
            for cause in dict.fromkeys(cause for of_rank in startup for cause in of_rank)
        },
        "memory": [host for host, _ in memory],
        "gpu_memory": [gpu for _, gpu in memory],
        "ranks": len(layout.places),
        "replicas": layout.replicas,
        "hosts": layout.hosts,
        "devices": [place.device for place in layout.places],
        "threads_per_rank": layout.places[0].threads,
    }
    return Results.model_validate(content | ({"reused": reused} if reused else {}))
