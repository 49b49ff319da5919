"""The machine file: what `bench collectives` and `bench step` have measured on one machine, for `plan`.

Plain JSON that people may read, and write for a machine that they don't have: of everything measured, `plan` reads
`host`, `fits`, `steps` and `runtime_bytes`; `collectives` are what the fits were made from.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ..core import environment

Collective = Literal["allreduce", "broadcast", "allgather", "gather", "scatter", "send"]
Quartiles = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class Record(BaseModel):
    """A part of the file: nothing but what is documented."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Oversubscribed = Annotated[bool, Field(validation_alias=AliasChoices("oversubscribed", "crowded"))]
"""Machine files of earlier revisions call it crowded."""


class Host(Record):
    """One host of the machine.

    Attributes:
        processor: its name.
        cores: that a job may use on a host.
        memory_bytes: of it.
    """

    processor: str
    cores: PositiveInt
    memory_bytes: PositiveInt

    @classmethod
    def here(cls, cores: int) -> Self:
        """This host."""
        return cls(processor=environment.processor(), cores=cores, memory_bytes=environment.facts()["memory_bytes"])


class MeasuredCollective(Record):
    """A collective.

    Attributes:
        collective: which.
        ranks, hosts: that take part.
        oversubscribed: whether more threads than cores worked on a host, so that ranks sleep while they wait.
        size: bytes, as :mod:`hpcdd.plan.collective_model` counts them.
        seconds: quartiles of hpcdd's call, of the slowest rank.
        bare: of the bare mpi4py call.
        date: of the measurement.
    """

    collective: Collective
    ranks: Annotated[int, Field(ge=2)]
    hosts: PositiveInt
    oversubscribed: Oversubscribed
    size: PositiveInt
    seconds: Quartiles
    bare: Quartiles
    date: str

    @property
    def key(self) -> tuple[object, ...]:
        """A new measurement with the same takes the place of an old one."""
        return self.collective, self.ranks, self.hosts, self.oversubscribed, self.size


class FittedCollective(Record):
    """The latency-bandwidth model of one collective, see :mod:`hpcdd.plan.collective_model`.

    Attributes:
        collective: which.
        between_hosts: whether ranks of several hosts took part.
        oversubscribed: as for :class:`MeasuredCollective`.
        latency: alpha, seconds.
        seconds_per_byte: beta.
        typical_error, largest_error: of the fit, relative.
        points: that were fitted.
    """

    collective: Collective
    between_hosts: bool
    oversubscribed: Oversubscribed
    latency: NonNegativeFloat
    seconds_per_byte: NonNegativeFloat
    typical_error: NonNegativeFloat = 0.0
    largest_error: NonNegativeFloat = 0.0
    points: int = 0


class MeasuredStep(Record):
    """A piece of work of one rank, without messages.

    Attributes:
        kind: ``cnn``, a training step of a CNN; ``evaluation``, a batch through a CNN; ``dnn``, the DNN's as root
            trains it; ``head``, a training step of a rank's part of the DNN in the coherent model.
        network: what is trained on what, in words: :class:`hpcdd.plan.workload.Work`.
        batch: samples.
        summands: subdomains of the rank, of a head; else 1.
        precision: ``fp32`` or ``bf16``.
        device: ``cpu``, or the name of the GPU.
        threads: of the rank.
        busy: ranks that worked on each host at the same time.
        flops: floating point operations of it, a multiplication and an addition being two.
        seconds: quartiles, of the slowest rank.
        date: of the measurement.
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

    @property
    def key(self) -> tuple[object, ...]:
        """A new measurement with the same takes the place of an old one."""
        return (
            self.kind,
            self.network,
            self.batch,
            self.summands,
            self.precision,
            self.device,
            self.threads,
            self.busy,
        )


class Machine(Record):
    """The content of a machine file.

    Attributes:
        format: of the file.
        host: each of the machine's hosts.
        mpi_library, torch: what they say of themselves.
        runtime_bytes: of a rank that is ready to train: interpreter, libraries, MPI.
        collectives, fits, steps: see there.
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
        candidates = [fit for fit in self.fits if fit.collective == collective]
        wanted = (between_hosts, oversubscribed)
        order = sorted(
            candidates, key=lambda fit: (fit.between_hosts != between_hosts, fit.oversubscribed != oversubscribed)
        )
        if not order:
            return None, False
        return order[0], (order[0].between_hosts, order[0].oversubscribed) == wanted
