"""The results of a study so far, read from its directory alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..artifacts import study_index
from ..artifacts.results import Results
from ..artifacts.study_index import StudyEntry, StudyIndex
from ..core.errors import UserError
from ..core.files import read_json
from ..core.texts import printable_lines
from ..runs.run_directory import RunDirectory

RUNS = "runs"
FAILED = "failed"
Condition = Literal["complete", "failed", "unfinished", "not begun"]


@dataclass(frozen=True)
class RunOutcome:
    """A run of the study.

    Attributes:
        entry: what it is.
        condition: how far it is.
        error: why it failed; None unless it did.
        results: of a complete run, else None.
    """

    entry: StudyEntry
    condition: Condition
    error: str | None = None
    results: Results | None = None


@dataclass(frozen=True)
class StudyOutcome:
    """A study's index and all its runs, in the order of the index."""

    index: StudyIndex
    runs: tuple[RunOutcome, ...]

    @property
    def complete(self) -> list[RunOutcome]:
        """Those with results."""
        return [run for run in self.runs if run.results is not None]

    @property
    def missing(self) -> list[RunOutcome]:
        """Those without."""
        return [run for run in self.runs if run.results is None]


def read(folder: Path) -> StudyOutcome:
    """Reads study.json, and of every run its results, or why there are none.

    A run that has results.json is complete, so that a directory without checkpoints, as one takes it home, is enough.

    Raises:
        UserError: the folder is not a study directory, or its index or results are damaged.
    """
    index = study_index.read(folder)
    return StudyOutcome(index, tuple(_run(folder, entry) for entry in index.runs))


def _run(folder: Path, entry: StudyEntry) -> RunOutcome:
    directory = RunDirectory(folder / RUNS / entry.id)
    if directory.results.exists():
        return RunOutcome(entry, "complete", results=Results.read(directory.results))
    if (error := failure(folder, entry.id)) is not None:
        return RunOutcome(entry, "failed", error=error)
    return RunOutcome(entry, "not begun" if directory.condition() == "empty" else "unfinished")


def failure(folder: Path, run_id: str) -> str | None:
    """Why a run has failed, in printable lines, or that the record of it is damaged; None where it has not failed."""
    path = folder / FAILED / f"{run_id}.json"
    try:
        text = read_json(path, study_index.FailedRun).error
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        text = str(error)
    return printable_lines(text)
