"""results.json: the results and the cost of a complete run; one schema for its writer and its readers.

A file may hold more than is read here: fields are added, and none is changed without another ``format``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ..config.schema import Config
from ..core.files import read_json, write_json, writing
from ..core.names import STRATEGIES, CountedName, PhaseName, Start, TrainingName, coherent_phase
from ..core.texts import printable
from ..data.problem import Problem
from ..decomposition.rank_layout import RankLayout
from ..mpi.traffic import Traffic

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
    """Name of the data set."""
    train: PositiveInt
    """Number of training samples used, without those set aside for validation."""
    validation: PositiveInt | None = None
    """Number of validation samples; null without a validation split."""
    test: PositiveInt
    """Number of test samples."""
    classes: PositiveInt
    """Number of classes, K."""
    class_names: list[str] = []
    """Names of the classes 0 to K - 1."""
    image_shape: list[PositiveInt]
    """Shape of an image, (C, *spatial): channels, then pixels along each spatial axis."""


class Boxes(Part):
    """The decomposition of an image into S subdomains. Their numbers, 0 to S - 1, are used in all other fields."""

    grid: list[PositiveInt] | None = None
    """Number of subdomains along each spatial axis; null if the boxes were given explicitly."""
    overlap: list[NonNegativeInt] = []
    """Pixels along each spatial axis by which a box extends into its neighbours."""
    boxes: list[list[list[NonNegativeInt]]]
    """For each subdomain except the coarse one, ``[start, stop]``: the first pixel along each spatial axis, and one
    past the last."""
    coarse: list[PositiveInt] | None = None
    """Pixels along each spatial axis that the coarse subdomain averages into one; null without a coarse subdomain."""


class WidthFacts(Part):
    """Widths of the CNNs: channels of their first block."""

    of_global: PositiveInt = Field(alias="global")
    """Width of the global CNN, also if it was not trained."""
    local: PositiveInt
    """Width of the local CNNs."""


class Parameters(Part):
    """Number of trainable parameters of each network."""

    of_global: NonNegativeInt = Field(alias="global")
    """Parameters of the global CNN, also if it was not trained."""
    local: list[NonNegativeInt]
    """Parameters of each local CNN, by subdomain; the coarse one last."""
    dnn: NonNegativeInt
    """Parameters of the DNN that combines the outputs of the local CNNs."""
    coherent: NonNegativeInt | None = None
    """Parameters of the coherent model, its local CNNs and its DNN together; null if it was not trained."""


class Voting(Part):
    """Accuracy of the local CNNs, and of the rules that combine their outputs without training."""

    local: list[Rate] = []
    """Accuracy of each local CNN on its own, by subdomain; the coarse one last."""
    average: Rate | None = None
    """Accuracy of the average probability: the mean of the local probabilities."""
    majority: Rate | None = None
    """Accuracy of the majority vote of the local CNNs."""
    log_pool: Rate | None = None
    """Accuracy of the log-opinion pool: the geometric mean of the local probabilities."""


class Accuracy(Voting):
    """Accuracy of each strategy on one split; null for a strategy that was not trained."""

    dnn: Rate | None = None
    """Accuracy of the DNN on the outputs of the local CNNs."""
    coherent_transfer: Rate | None = None
    """Accuracy of the coherent model that starts from the trained local CNNs."""
    coherent_transfer_parts: Voting | None = None
    """Accuracy of the local CNNs of this coherent model after its training, and of the rules that combine them."""
    coherent_scratch: Rate | None = None
    """Accuracy of the coherent model that starts from random parameters."""
    coherent_scratch_parts: Voting | None = None
    """Accuracy of the local CNNs of this coherent model after its training, and of the rules that combine them."""
    of_global: Rate | None = Field(default=None, alias="global")
    """Accuracy of the global CNN."""

    def of(self, strategy: str) -> float | None:
        """Accuracy of any strategy except ``local``; None if it was not trained."""
        value: float | None = getattr(self, "of_global" if strategy == "global" else strategy)
        return value

    def parts_of(self, start: Start) -> Voting | None:
        """Accuracy of the local CNNs of a coherent model, by its start; None if it was not trained."""
        value: Voting | None = getattr(self, f"{coherent_phase(start)}_parts")
        return value


class Results(Part):
    """The content of results.json."""

    format: Literal[1] = 1
    """Version of the format."""
    name: str
    """Name of the run: the setting `name`."""
    seed: int
    """Seed of all random numbers of the run."""
    dataset: Dataset
    decomposition: Boxes
    width: WidthFacts
    parameters: Parameters
    accuracy: dict[str, Accuracy]
    """Accuracy by split (``train``, ``validation``, ``test``)."""
    seconds: dict[str, NonNegativeFloat | list[NonNegativeFloat]] = {}
    """Wall time by phase, measured on root. All ranks end a phase together, so it includes root's wait for the slowest
    rank. Two entries are measured differently: ``local`` lists the training and evaluation time of each local CNN, by
    subdomain; ``checkpoints`` is that of the rank that spent the most time on checkpoints. In a resumed run, trainings
    include the time of earlier jobs, and ``gather`` is that of the job that performed it; ``total`` (from the launch to
    the end) and all other entries are those of the last job."""
    core_seconds: dict[str, NonNegativeFloat]
    """CPU seconds by phase, summed over all ranks; ``total`` is the sum of all phases."""
    communication: dict[str, dict[str, Number]] = {}
    """MPI traffic by phase: ``calls``, and ``bytes`` of payload sent and received; for phases that communicate in every
    training step also ``calls_per_step`` and ``bytes_per_step``. Each number is the maximum over the ranks."""
    bytes_read: list[NonNegativeInt] = []
    """Bytes of pixels that each rank has read from the dataset file."""
    startup: dict[str, NonNegativeFloat] = {}
    """Seconds from the launch to the end of the first training step, by cause in the order of events (``interpreter``,
    ``mpi``, ``configuration``, ``imports``, ``problem``, ``directory``, ``read``, ``first_step``). Each is the maximum
    over the ranks."""
    memory: list[NonNegativeInt] = []
    """Peak resident host memory of each rank, bytes."""
    gpu_memory: list[NonNegativeInt | None] = []
    """Peak GPU memory that torch allocated on each rank, bytes; null for a rank on the CPU."""
    ranks: PositiveInt
    """Number of ranks."""
    replicas: PositiveInt = 1
    """Number of ranks that train copies of one subdomain's CNN on shared batches; 1: each CNN is trained by one
    rank."""
    hosts: PositiveInt = 1
    """Number of hosts."""
    devices: list[str]
    """Device of each rank: ``cpu``, or ``cuda:i`` with the number i that the rank sees."""
    threads_per_rank: PositiveInt = 1
    """Number of CPU threads of root; other ranks may have another number."""
    reused: dict[str, str] | None = None
    """By phase, the name of the run directory from which its result was imported; null if nothing was imported."""

    @classmethod
    def read(cls, path: Path) -> Results:
        """Reads the file; names are made printable, because they may come from untrusted sources.

        Raises:
            UserError: the file can't be read, is damaged, or has another format; names the file and the field.
        """
        results = read_json(path, cls)
        return results.model_copy(
            update={"dataset": results.dataset.model_copy(update={"name": printable(results.dataset.name)})}
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

    def seconds_of(self, phase: PhaseName | Literal["total"]) -> float | None:
        """Wall time of a phase as in ``seconds`` (for ``local``, that of the slowest CNN); None if it was not run."""
        seconds = self.seconds.get(phase)
        return max(seconds, default=0.0) if isinstance(seconds, list) else seconds


def traffic_of(
    ranks: Iterable[Mapping[CountedName, Traffic]], steps: Mapping[TrainingName, int]
) -> dict[str, dict[str, float]]:
    """Calls and bytes by phase, the maximum over the ranks, so that zero means that no rank has any.

    Args:
        ranks: traffic by phase, of each rank.
        steps: number of training steps of each phase whose messages are also counted per step.
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


def summed(ranks: Iterable[Mapping[PhaseName, float]]) -> dict[str, float]:
    """The sum over the ranks by phase, and ``total``, the sum over all phases."""
    phases: dict[str, float] = {}
    for of_rank in ranks:
        for phase, value in of_rank.items():
            phases[phase] = phases.get(phase, 0.0) + value
    return {**phases, "total": sum(phases.values())}


def longest(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The maximum over the ranks by cause, in the order of events."""
    causes = dict.fromkeys(cause for of_rank in ranks for cause in of_rank)
    return {cause: max(of_rank.get(cause, 0.0) for of_rank in ranks) for cause in causes}


def facts_of(config: Config, problem: Problem, layout: RankLayout) -> dict[str, Any]:
    """The part of the content that is known before the run."""
    info, decomposition, widths = problem.info, problem.decomposition, problem.widths
    return {
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
        "ranks": len(layout.placements),
        "replicas": layout.replicas,
        "hosts": layout.hosts,
        "devices": [placement.device for placement in layout.placements],
        "threads_per_rank": layout.placements[0].threads,
    }
