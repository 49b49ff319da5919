"""Results of the evaluations of a run, phase by phase, so that a resumed run need not repeat them.

::

    checkpoints/evaluated.json      checksummed: identity of the run; by phase accuracies, costs and the SHA-256 of
    checkpoints/examined/PHASE.h5   the phase's arrays of decisions.h5
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy.typing as npt

from ..core.errors import DamagedError
from ..core.files import digest, read_checksummed, write_bytes, write_checksummed, writing
from ..core.hdf5 import whole

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
        self._index, self._examined, self._run = folder / "evaluated.json", folder / "examined", run
        self.phases: dict[str, Any] = {}
        self.arrays: dict[str, Arrays] = {}
        with contextlib.suppress(FileNotFoundError, DamagedError):
            content = read_checksummed(self._index)
            if content["run"] == run:
                for phase, evaluation in content["phases"].items():
                    with contextlib.suppress(OSError, DamagedError):
                        self.arrays[phase] = self._read(phase, evaluation.get("pieces"))
                        self.phases[phase] = evaluation

    def drop(self, prefixes: Sequence[str]) -> None:
        """Removes the phases whose names begin with one of the prefixes.

        Raises:
            WriteError: that can't be written.
        """
        self.phases = {p: evaluation for p, evaluation in self.phases.items() if not p.startswith(tuple(prefixes))}
        self.arrays = {phase: self.arrays[phase] for phase in self.phases}
        self._write()

    def add(self, phase: str, evaluation: dict[str, Any], arrays: Arrays) -> None:
        """Stores the evaluation of a phase in memory and on disk.

        Raises:
            WriteError: it can't be written; it is stored in memory all the same.
        """
        self.phases[phase], self.arrays[phase] = evaluation, arrays
        image, path = _encode(arrays), self._path(phase)
        evaluation["pieces"] = digest(image)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, image)
        self._write()

    def _write(self) -> None:
        with writing(self._index):
            write_checksummed(self._index, {"run": self._run, "phases": self.phases})

    def _read(self, phase: str, checksum: object) -> Arrays:
        image = self._path(phase).read_bytes()
        if digest(image) != checksum:
            raise DamagedError(f"{self._path(phase)} is damaged (its SHA-256 does not match)")
        try:
            return _decode(image)
        except (RuntimeError, ValueError) as error:
            raise DamagedError(f"{self._path(phase)} is damaged ({error})") from error

    def _path(self, phase: str) -> Path:
        return self._examined / f"{phase}.h5"


def _encode(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Builds the HDF5 file in memory, so that it can be checksummed and written atomically."""
    with h5py.File("arrays", "w", driver="core", backing_store=False) as file:
        for name, values in arrays.items():
            file[name] = values
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _decode(image: bytes) -> Arrays:
    arrays: Arrays = {}
    with h5py.File(io.BytesIO(image), "r") as file:
        file.visititems(
            lambda name, item: arrays.update({name: whole(item)}) if isinstance(item, h5py.Dataset) else None
        )
    return arrays
