"""Machine files: read, written, and added to by every benchmark that names one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from ..core.files import read_json
from . import collective_model
from .machine import Machine, MeasuredCollective, MeasuredStep


def load(path: Path) -> Machine:
    """Reads a machine file.

    Raises:
        UserError: it can't be read, or is not a machine file; with its mistakes and their places.
    """
    try:
        return read_json(path, Machine)
    except UserError as error:
        how = "a machine file is made by `hpcdd bench step --output FILE` and `hpcdd bench collectives --output FILE`"
        raise UserError(f"{error}\n{how}") from error


def joined(machine: Machine, path: Path | None) -> Machine:
    """The machine as a file describes it so far; ``machine`` where there is no file.

    Raises:
        UserError: it is not a machine file, or describes another machine.
    """
    if path is None or not path.exists():
        return machine
    before = load(path)
    for what, old, new in (
        ("processor", before.host.processor, machine.host.processor),
        ("number of cores of a host", before.host.cores, machine.host.cores),
        ("MPI library", before.mpi_library, machine.mpi_library),
        ("torch", before.torch, machine.torch),
    ):
        if old != new:
            raise UserError(
                f"machine file {path} describes another machine: its {what} is {old!r}, but here it is {new!r}; name "
                "another file with --output"
            )
    return before


def added(
    machine: Machine,
    *,
    collectives: Sequence[MeasuredCollective] = (),
    steps: Sequence[MeasuredStep] = (),
    runtime_bytes: int | None = None,
) -> Machine:
    """The machine with new results, which replace old ones with the same key; collectives are refitted."""
    measured = {point.key: point for point in (*machine.collectives, *collectives)}
    timed = {step.key: step for step in (*machine.steps, *steps)}
    fitted = {(fit.collective, fit.between_hosts, fit.oversubscribed): fit for fit in machine.fits}
    if collectives:
        fitted |= collective_model.fit_all(measured.values())
    return machine.model_copy(
        update={
            "collectives": tuple(measured.values()),
            "fits": tuple(fitted.values()),
            "steps": tuple(timed.values()),
            "runtime_bytes": runtime_bytes or machine.runtime_bytes,
        }
    )
