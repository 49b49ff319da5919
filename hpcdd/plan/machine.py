"""The machine file: measurements of ``hpcdd bench step`` and ``hpcdd bench collectives`` on one machine.

``hpcdd plan`` computes times from them: it reads ``host``, ``fits``, ``steps`` and ``runtime_bytes``. The file is plain
JSON, and can be written by hand for a machine that is not available. Quartiles are lower quartile, median and upper
quartile over the rounds of a measurement, in seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ..artifacts.documents import Document
from ..core import environment

Collective = Literal["allreduce", "broadcast", "allgather", "gather", "scatter", "send"]
Quartiles = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Oversubscribed = Annotated[bool, Field(validation_alias=AliasChoices("oversubscribed", "crowded"))]
"""Machine files of earlier revisions call it crowded."""


class Host(Document):
    """A host of the machine; all hosts are assumed to be equal.

    Attributes:
        processor: model name of the processor.
        cores: number of cores that a job may use on a host.
        memory_bytes: memory of a host, bytes.
    """

    processor: str
    cores: PositiveInt
    memory_bytes: PositiveInt

    @classmethod
    def here(cls, cores: int) -> Self:
        """This host."""
        return cls(processor=environment.processor(), cores=cores, memory_bytes=environment.facts()["memory_bytes"])


class Measurement(Document):
    """A measured time, with the conditions under which it was measured."""

    @property
    def key(self) -> tuple[object, ...]:
        """The conditions; a new measurement replaces an old one with the same key."""
        return tuple(self.model_dump(exclude={"flops", "seconds", "bare", "date"}).values())


class MeasuredCollective(Measurement):
    """A measurement of one collective; the fits are made from these.

    Attributes:
        collective: ``allreduce``, ``broadcast``, ``allgather``, ``gather``, ``scatter`` or ``send``.
        ranks: number of ranks that took part.
        hosts: number of hosts of these ranks.
        oversubscribed: whether a host had more threads than cores.
        size: message size n in bytes: the whole message of an allreduce, a broadcast or a send; what each rank
            (allgather) or root (gather) has in the end; what root has in the beginning (scatter).
        seconds: time of hpcdd's call on the slowest rank, quartiles.
        bare: time of the bare mpi4py call on the slowest rank, quartiles.
        date: date of the measurement, YYYY-MM-DD.
    """

    collective: Collective
    ranks: Annotated[int, Field(ge=2)]
    hosts: PositiveInt
    oversubscribed: Oversubscribed
    size: PositiveInt
    seconds: Quartiles
    bare: Quartiles
    date: str


class FittedCollective(Document):
    """The latency-bandwidth model of one collective: n bytes on p ranks take ``latency`` A + ``seconds_per_byte`` B.

    A is ceil(log2 p), for a send 1. B is 2 n (p - 1) / p for allreduce and broadcast, n (p - 1) / p for allgather,
    gather and scatter, n for a send.

    Attributes:
        collective: name of the collective, as in ``collectives``.
        between_hosts: whether ranks of several hosts took part.
        oversubscribed: whether a host had more threads than cores.
        latency: latency, seconds.
        seconds_per_byte: reciprocal of the bandwidth.
        typical_error: median of the fit's relative errors.
        largest_error: maximum of the fit's relative errors.
        points: number of measurements that were fitted.
    """

    collective: Collective
    between_hosts: bool
    oversubscribed: Oversubscribed
    latency: NonNegativeFloat
    seconds_per_byte: NonNegativeFloat
    typical_error: NonNegativeFloat = 0.0
    largest_error: NonNegativeFloat = 0.0
    points: int = 0


class MeasuredStep(Measurement):
    """A measurement of one kind of work of a rank, without messages.

    Attributes:
        kind: ``cnn``, a training step of a CNN; ``evaluation``, a forward pass of a CNN in evaluation mode; ``dnn``, a
            training step of the DNN on root; ``head``, a training step of a rank's part of the DNN that is trained
            distributed, or of the coherent model's.
        network: network and shape of its input; ``hpcdd plan`` looks a time up by this text.
        batch: samples per step.
        summands: number of subdomains of the rank for ``head``; 1 for other kinds.
        precision: ``fp32`` or ``bf16``.
        device: ``cpu``, or the name of the GPU.
        threads: number of threads of the rank.
        busy: number of ranks that worked on each host at the same time.
        flops: floating-point operations per step; a multiply-add counts as two.
        seconds: time of a step on the slowest rank, quartiles.
        date: date of the measurement, YYYY-MM-DD.
    """

    kind: Literal["cnn", "evaluation", "dnn", "head"]
    network: str
    batch: PositiveInt
    summands: PositiveInt
    precision: Literal["fp32", "bf16"]
    device: str
    threads: PositiveInt
    busy: PositiveInt
    flops: PositiveInt
    seconds: Quartiles
    date: str


class Machine(Document):
    """The content of a machine file.

    Attributes:
        format: version of the format.
        mpi_library: version string of the MPI library.
        torch: version of torch.
        runtime_bytes: host memory of a rank that is ready to train, without any data: interpreter, libraries and MPI;
            null if it was not measured.
    """

    format: Literal[1] = 1
    host: Host
    mpi_library: str
    torch: str
    runtime_bytes: PositiveInt | None = None
    collectives: tuple[MeasuredCollective, ...] = ()
    fits: tuple[FittedCollective, ...] = ()
    steps: tuple[MeasuredStep, ...] = ()

    @property
    def bf16(self) -> bool:
        """Whether steps were measured in bf16."""
        return any(step.precision == "bf16" for step in self.steps)

    def fit_of(
        self, collective: str, *, between_hosts: bool, oversubscribed: bool
    ) -> tuple[FittedCollective | None, bool]:
        """The fit that describes a collective best, and whether it was made under these very conditions."""

        def distance(fit: FittedCollective) -> tuple[bool, bool]:
            return fit.between_hosts != between_hosts, fit.oversubscribed != oversubscribed

        best = min((fit for fit in self.fits if fit.collective == collective), key=distance, default=None)
        return best, best is not None and not any(distance(best))
