"""What the evaluations of a run have found, phase by phase, so that a run that is resumed need not repeat them.

::

    checkpoints/evaluated.json      sealed: identity of the run; by phase accuracies, costs and the SHA-256 of
    checkpoints/examined/PHASE.h5   the phase's pieces of decisions.h5
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
from ..core.files import digest, read_sealed, write_bytes, write_sealed, writing
from ..core.hdf5 import whole

Pieces = dict[str, npt.NDArray[Any]]
"""Arrays by their places in decisions.h5."""


class EvaluationCache:
    """Those of one run, on root. What is not whole is as if it had never been: it is found again.

    Args:
        folder: of the run's checkpoints.
        run: identity of the run.

    Attributes:
        phases: by phase plain data.
        pieces: of the same phases.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._index, self._examined, self._run = folder / "evaluated.json", folder / "examined", run
        self.phases: dict[str, Any] = {}
        self.pieces: dict[str, Pieces] = {}
        with contextlib.suppress(FileNotFoundError, DamagedError):
            content = read_sealed(self._index)
            if content["run"] == run:
                for phase, found in content["phases"].items():
                    with contextlib.suppress(OSError, DamagedError):
                        self.pieces[phase] = self._read(phase, found.get("pieces"))
                        self.phases[phase] = found

    def drop(self, beginnings: Sequence[str]) -> None:
        """Forgets the phases whose names begin so.

        Raises:
            WriteError: that can't be written.
        """
        self.phases = {p: found for p, found in self.phases.items() if not p.startswith(tuple(beginnings))}
        self.pieces = {phase: self.pieces[phase] for phase in self.phases}
        self._write()

    def add(self, phase: str, found: dict[str, Any], pieces: Pieces) -> None:
        """Keeps what a phase's evaluation has found, in memory and on the disk.

        Raises:
            WriteError: it can't be written; in memory it is.
        """
        self.phases[phase], self.pieces[phase] = found, pieces
        image, path = _encode(pieces), self._path(phase)
        found["pieces"] = digest(image)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, image)
        self._write()

    def _write(self) -> None:
        with writing(self._index):
            write_sealed(self._index, {"run": self._run, "phases": self.phases})

    def _read(self, phase: str, seal: object) -> Pieces:
        image = self._path(phase).read_bytes()
        if digest(image) != seal:
            raise DamagedError(f"{self._path(phase)} is damaged (its SHA-256 does not match)")
        try:
            return _decode(image)
        except (RuntimeError, ValueError) as error:
            raise DamagedError(f"{self._path(phase)} is damaged ({error})") from error

    def _path(self, phase: str) -> Path:
        return self._examined / f"{phase}.h5"


def _encode(pieces: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """An HDF5 file in memory, so that nothing but whole bytes goes to the disk."""
    with h5py.File("pieces", "w", driver="core", backing_store=False) as file:
        for place, values in pieces.items():
            file[place] = values
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _decode(image: bytes) -> Pieces:
    found: Pieces = {}
    with h5py.File(io.BytesIO(image), "r") as file:
        file.visititems(
            lambda name, item: found.update({name: whole(item)}) if isinstance(item, h5py.Dataset) else None
        )
    return found
