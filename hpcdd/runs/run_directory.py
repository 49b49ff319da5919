"""The run directory: where it is, what is in it, and that nothing which lies there is overwritten.

::

    config.yaml         the complete configuration, with every default
    environment.json    versions, host and ranks of the last job
    metrics.jsonl       loss and accuracy of every epoch
    results.json        accuracies and costs, once the run is complete
    model.h5            the trained model, once the run is complete
    decisions.h5        predictions for the test split, once the run is complete
    report.html         the report, with its figures in figures/ (setting `run.report`)
    logs/rank-NNNN.log  log of each rank
    checkpoints/        what a resumed run needs: the run's record, networks, optimizers and evaluations
    tensorboard/        event files (setting `run.tensorboard`)
    profile/            traces of some training steps (`hpcdd train --profile`)
    lock, heartbeats/   signs of life of the job that works on the run
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ..core.errors import DamagedError, UserError
from ..core.files import clean_up, read_checksummed, write_checksummed, writing
from ..core.names import TrainingName

Condition = Literal["empty", "begun", "unfinished", "complete", "foreign"]


class RunDirectory:
    """Names of the files in a run's folder, and the record that makes it one that can be resumed.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.results = path / "results.json"
        self.model = path / "model.h5"
        self.decisions = path / "decisions.h5"
        self.tensorboard = path / "tensorboard"
        self.lock = path / "lock"
        self.logs = path / "logs"
        self.checkpoints = path / "checkpoints"
        self.heartbeats = path / "heartbeats"
        self.profile = path / "profile"
        self._records = [self.checkpoints / "run.json", self.checkpoints / "run-copy.json"]

    def log(self, rank: int) -> Path:
        """The log of one rank."""
        return self.logs / f"rank-{rank:04d}.log"

    def training(self, phase: TrainingName, subdomain: int | None = None) -> Path:
        """The folder of a training's checkpoints."""
        return self.checkpoints / phase if subdomain is None else self.checkpoints / phase / f"{subdomain:04d}"

    def condition(self) -> Condition:
        """What is in the folder: nothing; a run without a record yet, or with one; or something else.

        Raises:
            UserError: it can't be a folder, or the record of its run is damaged.
        """
        try:
            is_file = self.path.exists() and not self.path.is_dir()
            names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        except (OSError, ValueError) as error:  # too long a name, for one
            raise UserError(f"output is {str(self.path)!r}, which can't be a folder: {error}") from error
        if is_file:
            raise UserError(f"output is {self.path}, which is a file; name a folder that is empty or does not exist")
        if not names:
            return "empty"
        record = self.record()
        if record is not None:
            return "complete" if record["complete"] else "unfinished"
        known = {path.name for path in (self.config, self.environment, self.metrics, self.lock, self.logs)}
        known |= {f"{self.lock.name}.takeover", self.checkpoints.name, self.heartbeats.name, self.tensorboard.name}
        return "begun" if names <= known else "foreign"

    def record(self) -> dict[str, Any] | None:
        """What a run says of itself, see :mod:`hpcdd.runs.resume`; None where nothing was recorded.

        Raises:
            UserError: neither the record nor its copy is whole.
        """
        problems = []
        for path in self._records:
            try:
                content: dict[str, Any] = read_checksummed(path)
                return content
            except FileNotFoundError:
                continue
            except DamagedError as error:
                problems.append(str(error))
        if problems:
            raise UserError(f"the run can't be resumed: {'; '.join(problems)}")
        return None

    def write_record(self, content: dict[str, Any]) -> None:
        """Writes the record and its copy.

        Raises:
            WriteError: they can't be written.
        """
        with writing(self.checkpoints):
            self.checkpoints.mkdir(exist_ok=True)
            for path in self._records:
                write_checksummed(path, content)

    def tidy(self) -> None:
        """Takes away what a killed job has left half written; for the one job that holds the lock."""
        for folder in [self.path, *(path for path in self.path.rglob("*") if path.is_dir())]:
            clean_up(folder)
        for path in self.heartbeats.glob("*"):
            path.unlink(missing_ok=True)


def make(output: str | None, name: str) -> RunDirectory:
    """Makes the folder of a run, on root; one that is there is taken as it is.

    Args:
        output: ``output`` of the configuration; None for runs/NAME-K with the first free K.
        name: ``name`` of the configuration.

    Raises:
        UserError: it can't be made.
    """
    try:
        path = _first_free(Path("runs"), name) if output is None else Path(output)
        directory = RunDirectory(path)
        for folder in (path, directory.logs, directory.heartbeats):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the run directory can't be created: {error}; use --output FOLDER with a folder where you may write"
        ) from error
    return directory


def newest(name: str) -> Path | None:
    """Of the runs of this name, runs/NAME-K, the unfinished one with the greatest number; else the complete one.

    Raises:
        UserError: the record of a run is damaged, and no run with a greater number can be resumed.
    """
    numbered = [
        (int(number), path)
        for path in Path("runs").glob(f"{name}-*")
        if (number := path.name.removeprefix(f"{name}-")).isdecimal() and path.is_dir()
    ]
    complete = None
    for _, path in sorted(numbered, reverse=True):
        try:
            condition = RunDirectory(path).condition()
        except UserError as error:
            if complete is None:
                raise UserError(f"{error}; name the folder of another run with --output") from error
            continue
        if condition in ("begun", "unfinished"):
            return path
        if condition == "complete" and complete is None:
            complete = path
    return complete


def _first_free(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    number = 1
    while True:
        path = folder / f"{name}-{number:03d}"
        try:
            path.mkdir()  # fails where another job has just taken the number
            return path
        except FileExistsError:
            number += 1
