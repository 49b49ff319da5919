"""The checkpoints of one training in a folder: parts, and a manifest for each position, written last.

::

    e00003-s0000120.0002.h5     part of subdomain 2 after three epochs and 120 steps of the fourth
    e00003-s0000120.whole.h5    what belongs to all subdomains
    e00003-s0000120.json        manifest: names the parts that belong together, with sizes and SHA-256

A position without a manifest was not finished and is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...core.errors import DamagedError
from ...core.files import digest, read_checksummed, write_bytes, write_checksummed
from ...core.seeding import WHOLE
from .snapshot import Position

_NAME = re.compile(r"e(\d{5,})-s(\d{7,})\.")
PartEntry = dict[str, Any]


class CheckpointStore:
    """Checkpoints of one training. Knows nothing of MPI: who writes which part, and when, its user decides.

    Args:
        folder: made when something is written.
        run: identity of the run; manifests of other runs count as damaged.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self._run = run

    def positions(self) -> list[Position]:
        """Positions that have a manifest, newest first."""
        return sorted({_position(path) for path in self._files() if path.suffix == ".json"}, reverse=True)

    def manifest(self, position: Position) -> dict[str, Any]:
        """The manifest of a position.

        Raises:
            DamagedError: also where it belongs to another run, or is gone.
        """
        return self._read_manifest(self.folder / f"{_stem(position)}.json")

    def read(self, manifest: Mapping[str, Any], subdomains: Collection[int]) -> list[bytes]:
        """The parts of some subdomains, verified.

        Raises:
            DamagedError: a part is missing, or is not what was written.
        """
        return [self._read_part(manifest["pieces"], subdomain) for subdomain in subdomains]

    def verify(self, manifest: Mapping[str, Any]) -> None:
        """Reads all parts of a checkpoint.

        Raises:
            DamagedError: as for :meth:`read`.
        """
        for key in manifest["pieces"]:
            self._read_part(manifest["pieces"], WHOLE if key == _key(WHOLE) else int(key))

    def write(self, position: Position, subdomain: int, part: bytes) -> dict[str, PartEntry]:
        """Writes one part.

        Returns:
            Its entry for the manifest, by its key.

        Raises:
            OSError: it can't be written; what was there is unharmed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{_stem(position)}.{_key(subdomain)}.h5"
        write_bytes(self.folder / name, part)
        return {_key(subdomain): {"file": name, "bytes": len(part), "sha256": digest(part)}}

    def publish(
        self,
        position: Position,
        parts: Mapping[str, PartEntry],
        costs: Mapping[str, float],
        before: Position | None,
    ) -> None:
        """Writes the manifest, after all parts; then removes what is no longer kept.

        Args:
            position: of the parts.
            parts: all entries.
            costs: of the training so far.
            before: the last position that is known to be whole; it is kept, too.

        Raises:
            OSError: it can't be written; the checkpoints before are unharmed.
        """
        content = {
            "run": self._run,
            "epoch": position.epoch,
            "steps": position.steps,
            "costs": dict(costs),
            "pieces": dict(parts),
        }
        write_checksummed(self.folder / f"{_stem(position)}.json", content)
        gone = [path for path in self._files() if _position(path) not in (position, before)]
        for path in sorted(gone, key=lambda path: path.suffix != ".json"):  # manifests first
            if _position(path) < position:  # what lies ahead may just be written, or was found damaged
                path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("e*-s*.*") if _NAME.match(path.name)]

    def _read_manifest(self, path: Path) -> dict[str, Any]:
        try:
            content: dict[str, Any] = read_checksummed(path)
        except FileNotFoundError as error:
            raise DamagedError(f"{path} is not there") from error
        if content.get("run") != self._run:
            raise DamagedError(f"{path} belongs to another run")
        return content

    def _read_part(self, entries: Mapping[str, PartEntry], subdomain: int) -> bytes:
        entry = entries[_key(subdomain)]
        path = self.folder / str(entry["file"])
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise DamagedError(f"{path} has {size:,} bytes instead of {entry['bytes']:,}")
            part: bytes = path.read_bytes()
        except OSError as error:
            raise DamagedError(f"{path} can't be read ({error.strerror})") from error
        if digest(part) != entry["sha256"]:
            raise DamagedError(f"{path} is damaged (its SHA-256 does not match the manifest)")
        return part


def _key(subdomain: int) -> str:
    return "whole" if subdomain == WHOLE else f"{subdomain:04d}"


def _stem(position: Position) -> str:
    return f"e{position.epoch:05d}-s{position.steps:07d}"


def _position(path: Path) -> Position:
    match = _NAME.match(path.name)
    assert match is not None, path
    return Position(int(match[1]), int(match[2]))
