"""The study directory: which runs a study has, which of them are complete, and which have failed.

::

    study.json      the definition of the study and its runs
    runs/ID/        run directory of each run, as of `hpcdd train`
    failed/ID.json  why a run has failed: {"error": "...", "exit_code": n}
    claims/JOB/     which group of ranks of a job works on which run; exists only while a job works on the study, or
                    after it was killed
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..artifacts import study_index
from ..artifacts.documents import write_document
from ..artifacts.study_index import StudyEntry, StudyIndex, TableOf
from ..core.errors import UserError
from ..core.files import writing
from ..core.names import TrainingName
from ..runs import resume
from ..runs.resume import Job
from ..runs.run_directory import RunDirectory
from . import study_results
from .study_request import StudyRequest, StudyRun
from .study_results import Condition


class StudyDirectory:
    """Names of the files of a study.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.claims = path / "claims"
        self.failures = path / study_results.FAILED

    def run(self, run_id: str) -> RunDirectory:
        """The directory of one run."""
        return RunDirectory(self.path / study_results.RUNS / run_id)

    def failure(self, run_id: str) -> str | None:
        """See :func:`hpcdd.studies.study_results.failure`."""
        return study_results.failure(self.path, run_id)

    def fail(self, run_id: str, error: str, exit_code: int) -> None:
        """Records that a run has failed.

        Raises:
            WriteError: that can't be written.
        """
        path = self._failed(run_id)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            write_document(path, study_index.FailedRun(error=error, exit_code=exit_code))

    def clear(self, run_id: str) -> None:
        """Forgets that a run has failed."""
        self._failed(run_id).unlink(missing_ok=True)

    def condition(self, run: StudyRun) -> Condition:
        """The condition of one run.

        Raises:
            UserError: its folder holds something else, or its record is damaged.
        """
        if self.failure(run.id) is not None:
            return "failed"
        directory = self.run(run.id)
        condition = directory.condition()
        if condition == "foreign":
            raise UserError(f"{directory.path} is not empty and holds no run; move it, or name another --output")
        if condition == "complete":
            return "complete" if self.job(run).done else "unfinished"
        return "not begun" if condition == "empty" else "unfinished"

    def job(self, run: StudyRun, sources: Mapping[TrainingName, Path] | None = None) -> Job:
        """What is to be done for one run.

        Args:
            run: which.
            sources: see :class:`hpcdd.runs.resume.Job`.

        Raises:
            UserError: the run was begun with other settings.
        """
        directory = self.run(run.id)
        config = run.config.model_copy(update={"output": str(directory.path)})
        record = directory.record()
        if record is not None:
            record = resume.in_todays_settings(directory.path, record)
            config = resume.resumed(record, config, directory)
        return Job(config, print_only=False, record=record, study=True, sources=sources or {})

    def begin(self, request: StudyRequest) -> None:
        """Makes the folder, or resumes an unfinished study; writes study.json.

        Raises:
            UserError: it can't be made, belongs to something else, or one of its runs was begun with other settings.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise UserError(f"output is {self.path}, which is a file; name a folder with --output")
            self.path.mkdir(parents=True, exist_ok=True)
            self._check(request)
        except OSError as error:
            raise UserError(f"the study directory can't be created: {error}; name another one with --output") from error
        problems: dict[str, None] = {}
        for run in request.runs:
            try:
                if self.condition(run) != "not begun":
                    self.job(run)
            except UserError as error:
                problems |= dict.fromkeys(str(error).splitlines())
        if problems:
            raise UserError("\n".join(problems))
        write_document(self.path / study_index.NAME, index_of(request))

    def _check(self, request: StudyRequest) -> None:
        """Refuses a folder that holds something else; another job may just be making this very study there."""
        if (self.path / study_index.NAME).exists():
            present = study_index.read(self.path)
            if (present.name, present.variant) != (request.name, request.variant):
                of = "" if present.variant is None else f", variant {present.variant}"
                raise UserError(
                    f"output is {self.path}, which holds the study {present.name}{of}; name another --output"
                )
            return
        folders = {study_results.RUNS, study_results.FAILED, self.claims.name}
        if any(
            path.name not in folders and not path.name.startswith(f".{study_index.NAME}.")
            for path in self.path.iterdir()
        ):
            raise UserError(
                f"output is {self.path}, a folder that is not empty and holds no study; name another --output"
            )

    def _failed(self, run_id: str) -> Path:
        return self.failures / f"{run_id}.json"


def index_of(request: StudyRequest) -> StudyIndex:
    """The content of study.json."""
    description = request.description
    return StudyIndex(
        name=request.name,
        title=description.title or request.name,
        variant=request.variant,
        config=request.base,
        matrix=description.matrix,
        expect=description.expect,
        table=TableOf(columns=description.table.columns),
        runs=tuple(
            StudyEntry(id=run.id, fields=run.combination.fields, labels=run.combination.labels) for run in request.runs
        ),
    )
