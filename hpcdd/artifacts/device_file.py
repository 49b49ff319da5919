"""device.json: the tests and measurements of one device, by ``hpcdd bench device``. Needs no torch or MPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TextIO

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ..core.text_table import print_table
from .documents import Document

NAME = "device.json"
Quartiles = tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]


class DeviceTests(Document):
    """Results of the tests for devices, which come with a checkout.

    Attributes:
        passed: number of tests that passed.
        failed: number of tests that failed or raised an error.
        skipped: number of tests that were skipped.
        seconds: wall time of all tests.
        reason: why no test was run; empty if they were run.
        output: the last 4,000 characters that pytest printed.
    """

    passed: NonNegativeInt = 0
    failed: NonNegativeInt = 0
    skipped: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
    reason: str = ""
    output: str = ""


class MeasuredWay(Document):
    """One implementation of a training step, measured interleaved with the reference, plain eager PyTorch in fp32.

    Attributes:
        case: network and subimages, such as ``VGG3, 20 x 20 pixels``.
        way: the implementation, such as ``hpcdd, bf16``.
        cnns: number of CNNs that are trained in the step.
        batch: samples per step.
        seconds: wall time of a step of all these CNNs: lower quartile, median and upper quartile of the rounds.
        reference: likewise for the reference with the same number of CNNs.
        factor: likewise for ``reference`` / ``seconds`` of each round; above 1, this implementation is faster.
    """

    case: str
    way: str
    cnns: PositiveInt
    batch: PositiveInt
    seconds: Quartiles
    reference: Quartiles
    factor: Quartiles


class DeviceReport(Document):
    """The content of device.json.

    Attributes:
        format: version of the format.
        device: name of the GPU or processor.
        kind: ``cpu`` or ``cuda``.
        machine: facts about the host: those of environment.json up to ``variables``, and ``processor``, its model name.
        staging: by size of a message in bytes, the seconds to copy it from the GPU to the host and back, median; empty
            on a CPU.
        left_out: what was not measured, and why.
        seconds: wall time of all tests and measurements.
        time: local date and time of the end, ISO 8601 with the offset from UTC.
    """

    format: Literal[1] = 1
    device: str
    kind: str
    machine: dict[str, Any]
    tests: DeviceTests
    measurements: Annotated[list[MeasuredWay], Field(min_length=1)]
    staging: dict[PositiveInt, NonNegativeFloat]
    left_out: list[str]
    seconds: NonNegativeFloat
    time: str

    def rows(self) -> list[list[str]]:
        """A table: case, way, CNNs, milliseconds, those of the reference, factor with its quartiles."""
        return [
            [
                measurement.case,
                measurement.way,
                str(measurement.cnns),
                f"{1e3 * measurement.seconds[1]:.2f}",
                f"{1e3 * measurement.reference[1]:.2f}",
                "{1:.2f} ({0:.2f} to {2:.2f})".format(*measurement.factor),
            ]
            for measurement in self.measurements
        ]

    def show(self, out: TextIO) -> None:
        """Prints the table, and what was left out."""
        print_table(f"{self.device}: time per training step", HEAD, self.rows(), out, labels=2)
        for line in self.left_out:
            print(f"left out: {line}", file=out)
        out.flush()


HEAD = ["case", "way", "CNNs", "ms", "eager fp32, ms", "times as fast"]
"""Headings of :meth:`DeviceReport.rows`."""
