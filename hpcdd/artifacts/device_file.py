"""device.json: what ``bench device`` has found on one device, its tests and its measurements; no torch, no MPI."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt

from ..core.files import read_json, write_json, writing

NAME = "device.json"
Quartiles = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DeviceTests(_Entry):
    """The tests marked ``device``.

    Attributes:
        passed, failed, skipped: numbers of tests; errors count as failed.
        seconds: in all.
        reason: why none was run; else empty.
        output: the end of what pytest has printed.
    """

    passed: NonNegativeInt = 0
    failed: NonNegativeInt = 0
    skipped: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
    reason: str = ""
    output: str = ""


class MeasuredWay(_Entry):
    """One way of doing a training step, interleaved with the reference.

    Attributes:
        case: network and subimages, in words.
        way: in words.
        cnns: that take the step.
        batch: samples.
        seconds, reference: quartiles of a step, of this way and of plain PyTorch, eager and in fp32, for as many CNNs.
        factor: quartiles over the rounds of reference / seconds.
    """

    case: str
    way: str
    cnns: PositiveInt
    batch: PositiveInt
    seconds: Quartiles
    reference: Quartiles
    factor: Quartiles


class DeviceReport(_Entry):
    """All of it.

    Attributes:
        device: what it calls itself.
        kind: ``cpu`` or ``cuda``.
        machine: facts of :func:`hpcdd.core.environment.facts` with the processor.
        tests, measurements: see there.
        staging: by bytes of a message the seconds of its copies to MPI and back; empty on a CPU, where none is made.
        left_out: what was not measured, and why.
        seconds: in all.
        time: of the end.
    """

    format: Literal[1] = 1
    device: str
    kind: str
    machine: dict[str, Any]
    tests: DeviceTests
    measurements: list[MeasuredWay]
    staging: dict[PositiveInt, NonNegativeFloat]
    left_out: list[str]
    seconds: NonNegativeFloat
    time: str

    def rows(self) -> list[list[str]]:
        """A table: case, way, CNNs, milliseconds, those of the reference, factor with its quartiles."""
        return [
            [
                found.case,
                found.way,
                str(found.cnns),
                f"{1e3 * found.seconds[1]:.2f}",
                f"{1e3 * found.reference[1]:.2f}",
                "{1:.2f} ({0:.2f} to {2:.2f})".format(*found.factor),
            ]
            for found in self.measurements
        ]


HEAD = ["case", "way", "CNNs", "ms", "eager fp32, ms", "times as fast"]
"""Of :meth:`DeviceReport.rows`."""


def write(folder: Path, found: DeviceReport) -> None:
    """Writes the file.

    Raises:
        WriteError: it can't be written.
    """
    with writing(folder / NAME):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / NAME, found.model_dump(mode="json"))


def read(folder: Path) -> DeviceReport:
    """What :func:`write` wrote.

    Raises:
        UserError: it is not there, or damaged.
    """
    return read_json(folder / NAME, DeviceReport)
