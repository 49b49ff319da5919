"""study.json: what a study consists of, from which its directory is understood without the study file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ..core.errors import UserError
from ..core.files import read_json, write_json, writing
from ..core.texts import printable
from .names import StrategyName

NAME = "study.json"
Identity = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$", max_length=200)]
"""Of a run; also the name of its folder, so that it can lead nowhere else."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TableOf(_Part):
    """How the study's table looks.

    Attributes:
        columns: strategies, see there; None for all that the runs have.
    """

    columns: tuple[StrategyName, ...] | None = None


class StudyEntry(_Part):
    """A run of the study.

    Attributes:
        id: its identity, e.g. ``grid=2x2,seed=0``.
        fields: by full name of a field, what the run changes of the study's configuration.
        labels: by axis of the matrix, the run's place on it in words.
    """

    id: Identity
    fields: dict[str, Any]
    labels: dict[str, str]


class StudyIndex(_Part):
    """The content of study.json.

    Attributes:
        name, title, variant: of the study.
        config: its base configuration, nested as in a configuration file.
        matrix: by axis its values, or by case what the case changes.
        expect: statements on strategies, see :mod:`hpcdd.studies.hypotheses`.
        table: how the table looks.
        runs: in the order of the matrix.
    """

    format: Literal[1] = 1
    name: str
    title: Annotated[str, AfterValidator(printable)]
    variant: str | None = None
    config: dict[str, Any] = {}
    matrix: dict[str, Any] = {}
    expect: tuple[str, ...] = ()
    table: TableOf = TableOf()
    runs: tuple[StudyEntry, ...]

    @property
    def axes(self) -> list[str]:
        """Those of the matrix but for the seed: what tells one row of the table from another."""
        return [axis for axis in self.matrix if axis != "seed"]

    def seed(self, run: StudyEntry) -> int:
        """Of a run; 0, the configuration's default, where neither the matrix nor the study says one."""
        return int(run.fields.get("seed", self.config.get("seed", 0)))

    @model_validator(mode="after")
    def _check(self) -> Self:
        for run in self.runs:
            if lacking := [axis for axis in self.axes if axis not in run.labels]:
                raise ValueError(f"run {run.id} has no label for {lacking[0]}")
            if type(run.fields.get("seed", self.config.get("seed", 0))) is not int:
                raise ValueError(f"run {run.id} has a seed that is not an integer")
        return self


def write(folder: Path, index: StudyIndex) -> None:
    """Writes study.json into the directory of a study.

    Raises:
        WriteError: it can't be written.
    """
    with writing(folder / NAME):
        write_json(folder / NAME, index.model_dump(mode="json"))


def read(folder: Path) -> StudyIndex:
    """What :func:`write` wrote.

    Raises:
        UserError: the folder is no study's, or the file is damaged.
    """
    path = folder / NAME
    try:
        return read_json(path, StudyIndex)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UserError(f"{folder} is not a study directory: it contains no {NAME}") from error
        raise
