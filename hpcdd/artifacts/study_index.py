"""study.json: the definition of a study and its runs. It makes the study directory readable without the study file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ..core.errors import UserError
from ..core.files import read_json
from ..core.names import StrategyName
from ..core.texts import printable
from .documents import Document

NAME = "study.json"
Identity = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$", max_length=200)]
"""Name of a run and of its folder; the pattern keeps the folder inside the study directory."""


class TableOf(Document):
    """How the report shows the table of the study.

    Attributes:
        columns: strategies that the table compares, by their names in results.json; null for all that were trained.
    """

    columns: tuple[StrategyName, ...] | None = None


class StudyEntry(Document):
    """One run of the study.

    Attributes:
        id: name of the run and of its folder below ``runs``, such as ``grid=2x2,seed=0``.
        fields: settings in which the run differs from ``config``, by full name such as ``decomposition.grid``.
        labels: by axis of the matrix, the label of the run's value or case on this axis.
    """

    id: Identity
    fields: dict[str, Any]
    labels: dict[str, str]


class StudyIndex(Document):
    """The content of study.json.

    Attributes:
        format: version of the format.
        name: name of the study: that of its file, without the suffix.
        title: title of the study in reports.
        variant: name of the variant; null for a study without variants.
        config: settings that all runs have in common, nested as in a configuration file.
        matrix: by axis, a list of values of a setting, or a mapping from the label of each case to its settings.
        expect: the expected order of test accuracies, such as ``dnn > average`` or ``coherent_transfer >= dnn``.
        table: how the report shows the table of the study.
        runs: the runs, in the order of the matrix, the last axis fastest.
    """

    format: Literal[1] = 1
    name: str
    title: Annotated[str, AfterValidator(printable)]
    variant: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    matrix: dict[str, Any] = Field(default_factory=dict)
    expect: tuple[str, ...] = ()
    table: TableOf = TableOf()
    runs: tuple[StudyEntry, ...]

    @property
    def axes(self) -> list[str]:
        """The axes of the matrix except ``seed``: what distinguishes the rows of the table."""
        return [axis for axis in self.matrix if axis != "seed"]

    def seed(self, run: StudyEntry) -> int:
        """Seed of a run; the default of the setting, 0, if neither the matrix nor the study sets it."""
        return int(run.fields.get("seed", self.config.get("seed", 0)))

    @model_validator(mode="after")
    def _check(self) -> Self:
        for run in self.runs:
            if lacking := [axis for axis in self.axes if axis not in run.labels]:
                raise ValueError(f"run {run.id} has no label for {lacking[0]}")
            if type(run.fields.get("seed", self.config.get("seed", 0))) is not int:
                raise ValueError(f"run {run.id} has a seed that is not an integer")
        return self


class FailedRun(Document):
    """The content of failed/ID.json.

    Attributes:
        error: why the run has failed.
        exit_code: as of `hpcdd train`.
    """

    error: str
    exit_code: int


def read(folder: Path) -> StudyIndex:
    """The index in a study directory.

    Raises:
        UserError: the folder is not a study directory, or the file is damaged.
    """
    path = folder / NAME
    try:
        return read_json(path, StudyIndex)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UserError(f"{folder} is not a study directory: it contains no {NAME}") from error
        raise
