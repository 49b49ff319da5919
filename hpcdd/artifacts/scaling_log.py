"""The file of a scaling study: one JSON object per line for each measurement of ``hpcdd scale``.

New measurements are appended; what the file already holds is not measured again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic import ValidationError as Invalid

from ..config import loading
from ..config.scaling_study import Phase, ScalingStudy
from ..core.errors import UserError
from ..core.files import writing

FREE_SETTINGS = {"ranks", "phases", "repeats"}
"""Fields of a study that may change between jobs that append to one series."""
Text = Annotated[str, Field(pattern=r"^[\w.+-]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class MeasuredLayout(_Part):
    """Hosts, devices and libraries: facts that identify a measurement.

    Attributes:
        ranks_by_host: number of ranks on each host, in descending order.
        processors: model names of the processors of all ranks, each once, sorted.
        devices: names of the GPUs of all ranks, or ``cpu``, each once, sorted.
        mpi_library: version string of the MPI library.
        torch: version of torch.
    """

    ranks_by_host: list[PositiveInt]
    processors: list[str]
    devices: list[str]
    mpi_library: str
    torch: str


class Step(_Part):
    """Wall time of one step.

    Attributes:
        slowest: seconds on the slowest of the ranks that work in the step.
        fastest: seconds on the fastest of these ranks.
        warm_up: whether the step is one of the warm-up, which are not counted.
    """

    slowest: NonNegativeFloat
    fastest: NonNegativeFloat
    warm_up: bool


class HostFacts(BaseModel):
    """Facts about root's host, those of environment.json; a report reads the ones listed here.

    Attributes:
        platform: operating system and kernel.
        cores: number of logical cores of the host.
        cores_in_affinity_mask: number of logical cores that the process may use.
        memory_bytes: memory of the host, bytes.
        mpi_library: version string of the MPI library.
        packages: versions of the installed Python packages that matter here, by name.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    platform: str
    cores: PositiveInt
    cores_in_affinity_mask: PositiveInt
    memory_bytes: PositiveInt
    mpi_library: str
    packages: dict[str, str]


class ScalingLine(_Part):
    """One measurement: the steps of one phase on one number of ranks.

    Attributes:
        hpcdd_scaling: version of the format of the line.
        series: digest of the study and its problem; measurements of different series are not compared.
        phase: what is measured: a training step of the local CNNs (``local``), the same on one rank at a time
            (``alone``), of the DNN on root (``dnn``) or of the coherent model (``coherent``); or the gather of the
            local outputs on root (``gather``).
        ranks: number of ranks that took part.
        repeat: number of the repeat, from 0.
        layout: hosts, devices and libraries of these ranks. ``series``, ``phase``, ``ranks``, ``repeat`` and ``layout``
            together identify a measurement.
        name: name of the configuration: the setting `name`.
        kind: ``strong`` (the same problem on all numbers of ranks) or ``weak`` (the problem grows with the ranks).
        job: random identifier of the job that made the measurement. The measurements of a job are interleaved.
        seconds: wall time of all counted steps together, on the slowest rank.
        counting_steps: number of counted steps.
        steps: wall time of every step, those of the warm-up first.
        calls_per_step: MPI calls per counted step; the maximum over the ranks.
        bytes_per_step: bytes of payload sent and received per counted step; the maximum over the ranks.
        threads: number of threads of each rank.
        time: local date and time of the end of the measurement, ISO 8601 with the offset from UTC.
        subdomains: number of subdomains of the problem on this number of ranks.
        image_shape: shape of an image of this problem, (C, *spatial).
        replicas: number of ranks that train copies of one subdomain's CNN on shared batches.
        places: host, device, number of threads and number of subdomains of each rank.
        parameters: trainable parameters: ``local``, the different numbers of the local CNNs, each once; ``coherent``,
            the number of the coherent model.
        in_run: number of times that a run of the configuration performs a step of each phase.
        reading_seconds: wall time in which root read its samples.
        machine: facts about root's host.
        job_ranks: number of ranks of the job; those beyond ``ranks`` were idle during the measurement.
        study: settings of the scaling study, without the configuration.
        config: the configuration, nested as in a configuration file.
    """

    hpcdd_scaling: Literal[1] = 1
    series: Text
    phase: Phase
    ranks: PositiveInt
    repeat: NonNegativeInt
    layout: MeasuredLayout
    name: Text
    kind: Literal["strong", "weak"]
    job: str
    seconds: PositiveFloat
    counting_steps: PositiveInt
    steps: list[Step]
    calls_per_step: NonNegativeFloat
    bytes_per_step: NonNegativeFloat
    threads: PositiveInt
    time: str
    subdomains: PositiveInt
    image_shape: list[PositiveInt]
    replicas: PositiveInt
    places: list[tuple[str, str, PositiveInt, NonNegativeInt]]
    parameters: dict[str, Any]
    in_run: dict[Phase, NonNegativeFloat]
    reading_seconds: NonNegativeFloat
    machine: HostFacts
    job_ranks: PositiveInt
    study: dict[str, Any]
    config: dict[str, Any]

    @property
    def key(self) -> tuple[str, Phase, int, int, MeasuredLayout]:
        """What distinguishes one measurement from all others."""
        return self.series, self.phase, self.ranks, self.repeat, self.layout


def series(study: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Identity of a series of comparable measurements: a short digest of the study and its problem.

    Args:
        study, config: all fields of each, as plain data.
    """
    of_study = {name: value for name, value in study.items() if name not in {*FREE_SETTINGS, "config"}}
    of_config = {k: v for k, v in config.items() if k not in {"output", "progress", "checkpoint", "run"}}
    return hashlib.sha256(json.dumps([of_study, of_config], sort_keys=True).encode()).hexdigest()[:12]


def read(path: Path, *, may_be_missing: bool = False) -> list[ScalingLine]:
    """All lines of a file, without an incomplete last line that a killed job has left.

    Args:
        path: of the file.
        may_be_missing: whether a missing file counts as empty.

    Raises:
        UserError: it can't be read, or a line is not a measurement.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        if may_be_missing and isinstance(error, FileNotFoundError):
            return []
        raise UserError(
            f"{path} can't be read: {error.strerror}; name a file that `hpcdd scale` has written"
        ) from error
    return list(_parse(path, content))


def check_writable(path: Path) -> None:
    """Checks, before anything is measured, that lines can be appended; leaves no file or folder behind.

    Raises:
        WriteError: nothing can be appended to the file.
    """
    with writing(path):
        there = path.exists()
        new = [folder for folder in path.parents if not folder.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("ab").close()
            if not there:
                path.unlink()
        finally:
            for folder in new:
                if folder.exists():
                    folder.rmdir()


def append(path: Path, line: ScalingLine) -> None:
    """Appends one line and flushes it to the disk; removes an incomplete last line that a killed job has left.

    Raises:
        WriteError: it can't be written.
    """
    text = line.model_dump_json().encode() + b"\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another job may append to the same file; closing releases the lock
            file.seek(0)
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def _parse(path: Path, content: bytes) -> Iterator[ScalingLine]:
    *complete, _ = content.split(b"\n")
    for number, text in enumerate(complete, start=1):
        try:
            line = ScalingLine.model_validate_json(text)
        except Invalid as error:
            first = error.errors()[0]
            where, why = ".".join(map(str, first["loc"])) or "content", first["msg"]
            raise UserError(
                f"{path}:{number} is not a measurement of `hpcdd scale`: {where}: {why}; remove the line, or name "
                "another file"
            ) from error
        yield _in_todays_settings(line)


def _in_todays_settings(line: ScalingLine) -> ScalingLine:
    """A line of an earlier revision, which had fewer settings, with the series to which it belongs today."""
    if line.series != series(line.study, line.config):
        return line
    try:
        study = ScalingStudy.model_validate(line.study).model_dump(mode="json")
        config = loading.recorded(line.config, "a line").model_dump(mode="json")
    except (Invalid, UserError):  # a study of settings that no longer exist: a series of its own
        return line
    return line.model_copy(update={"series": series(study, config)})
