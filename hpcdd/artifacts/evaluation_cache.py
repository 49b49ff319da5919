"""Results of the evaluations of a run, phase by phase, so that a resumed run need not repeat them.

::

    checkpoints/evaluated.json      checksummed: identity of the run; by phase accuracies, costs and the SHA-256 of
    checkpoints/examined/PHASE.npz  the phase's arrays of decisions.h5
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.errors import DamagedError
from ..core.files import digest, read_checksummed, write_bytes, write_checksummed, writing
from ..core.names import TrainingName

Arrays = dict[str, npt.NDArray[Any]]
"""Arrays by their names in decisions.h5."""


class EvaluationCache:
    """The evaluations of one run, on root. A phase whose files are missing or damaged counts as not evaluated.

    Args:
        folder: of the run's checkpoints.
        run: identity of the run.

    Attributes:
        phases: accuracies and costs by phase, plain data.
        arrays: by phase, for the same phases.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._index, self._arrays_folder, self._run = folder / "evaluated.json", folder / "examined", run
        self.phases: dict[TrainingName, Any] = {}
        self.arrays: dict[TrainingName, Arrays] = {}
        with contextlib.suppress(FileNotFoundError, DamagedError):
            content = read_checksummed(self._index)
            if content["run"] == run:
                for phase, evaluation in content["phases"].items():
                    with contextlib.suppress(OSError, DamagedError):
                        self.arrays[phase] = self._read(phase, evaluation.get("pieces"))
                        self.phases[phase] = evaluation

    def drop(self, phases: Collection[TrainingName]) -> None:
        """Removes the evaluations of some phases.

        Raises:
            WriteError: that can't be written.
        """
        self.phases = {p: evaluation for p, evaluation in self.phases.items() if p not in phases}
        self.arrays = {phase: self.arrays[phase] for phase in self.phases}
        self._write()

    def add(self, phase: TrainingName, evaluation: dict[str, Any], arrays: Arrays) -> None:
        """Stores the evaluation of a phase in memory and on disk.

        Raises:
            WriteError: it can't be written; it is stored in memory all the same.
        """
        self.phases[phase], self.arrays[phase] = evaluation, arrays
        buffer, path = io.BytesIO(), self._path(phase)
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # no array is named allow_pickle
        image = buffer.getvalue()
        evaluation["pieces"] = digest(image)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, image)
        self._write()

    def _write(self) -> None:
        with writing(self._index):
            write_checksummed(self._index, {"run": self._run, "phases": self.phases})

    def _read(self, phase: TrainingName, checksum: object) -> Arrays:
        image = self._path(phase).read_bytes()
        if digest(image) != checksum:
            raise DamagedError(f"{self._path(phase)} is damaged (its SHA-256 does not match)")
        return dict(np.load(io.BytesIO(image), allow_pickle=False))

    def _path(self, phase: TrainingName) -> Path:
        return self._arrays_folder / f"{phase}.npz"
