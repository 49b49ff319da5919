"""Who takes which run: claims in the study directory, and which run waits for another one's result.

A claim is a file that only one group can create (O_EXCL), in a folder of this job, so that what a dead job has claimed
blocks nobody. (Against other jobs that are at work on the same study the lock of each run directory protects.) Besides
its run a group claims the results that it will train and others could import; a group that needs one that is being
trained does something else, or waits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.files import writing
from ..core.names import TrainingName
from ..runs import reuse
from .planned_runs import PlannedRun
from .study_directory import StudyDirectory


@dataclass(frozen=True)
class Claim:
    """A run that a group has taken.

    Attributes:
        entry: see there.
        sources: by phase the directory of a run that has the result.
        trains: identities of results that this group trains for others, too.
    """

    entry: PlannedRun
    sources: dict[TrainingName, Path]
    trains: tuple[str, ...]


class Queue:
    """The runs of one stage, as one group's root sees them.

    Args:
        directory: of the study.
        job: identity of this job.
        entries: the runs, in the order in which they are taken.
        offering: all runs of the study that may have results, this stage's included.
    """

    def __init__(
        self, directory: StudyDirectory, job: str, entries: Sequence[PlannedRun], offering: Sequence[PlannedRun]
    ) -> None:
        self._directory, self._entries, self._offering = directory, list(entries), offering
        self._folder = directory.claims / job
        self._known: dict[str, Path] = {}
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)

    def take(self) -> Claim | None:
        """The next run that nobody has taken and that needs not wait; None where there is none now.

        Raises:
            WriteError: a claim can't be written.
        """
        for entry in list(self._entries):
            if self._path("run", entry.run.id).exists():
                self._entries.remove(entry)
                continue
            sources = self._sources(entry)
            trains = [result for phase, result in entry.results.items() if phase not in sources]
            held = [result for result in trains if self._claim("result", result)]
            if len(held) < len(trains):
                self._release(held)
                continue
            if not self._claim("run", entry.run.id):
                self._release(held)
                self._entries.remove(entry)
                continue
            self._entries.remove(entry)
            sources = self._sources(entry)  # one may have come between
            return Claim(entry, sources, tuple(held))
        return None

    @property
    def left(self) -> bool:
        """Whether runs are left that nobody had taken at the last :meth:`take`."""
        return bool(self._entries)

    def end(self, claim: Claim) -> None:
        """Releases the results of a run that has ended, complete or not: others may train what it has not."""
        self._release(claim.trains)

    def _sources(self, entry: PlannedRun) -> dict[TrainingName, Path]:
        sources = {phase: self._source(phase, result, entry) for phase, result in entry.results.items()}
        return {phase: source for phase, source in sources.items() if source is not None}

    def _source(self, phase: TrainingName, result: str, entry: PlannedRun) -> Path | None:
        if result not in self._known:
            for other in self._offering:
                directory = self._directory.run(other.run.id)
                if other is not entry and other.results.get(phase) == result and reuse.has(phase, directory, result):
                    self._known[result] = directory.path
                    break
        return self._known.get(result)

    def _claim(self, kind: str, name: str) -> bool:
        path = self._path(kind, name)
        with writing(path):
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
            except FileExistsError:
                return False
        return True

    def _release(self, results: Sequence[str]) -> None:
        for result in results:
            self._path("result", result).unlink(missing_ok=True)

    def _path(self, kind: str, name: str) -> Path:
        return self._folder / f"{kind}-{name}"


def close(directory: StudyDirectory, job: str) -> None:
    """Removes the claims of a job; another job's stay, since it may be at work."""
    shutil.rmtree(directory.claims / job, ignore_errors=True)
    with contextlib.suppress(OSError):  # there are others
        directory.claims.rmdir()
