"""Helpers for the tests of several importers: reading all of a source, and archives of a folder."""

from __future__ import annotations

import argparse
import io
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hpcdd.data.prepare.importers.decode_pool import DecodePool
from hpcdd.data.prepare.importers.image_source import ImageSource
from hpcdd.data.writing import Split


def pixels_of(part: Split) -> np.ndarray[Any, Any]:
    """All images of a split (n, C, *spatial)."""
    return np.concatenate(list(part.rows(np.arange(len(part.labels)), lambda _: None)))


def read(kind: ModuleType, source: Path, pool: DecodePool | None = None, **options: Any) -> ImageSource:
    """Reads with the options' defaults but for those given."""
    parser = argparse.ArgumentParser()
    kind.add_arguments(parser)
    return kind.read(source, pool or DecodePool(threads=2), **{**vars(parser.parse_args([])), **options})


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def tar_bytes(files: dict[str, bytes], mode: str = "gz") -> bytes:
    """A tar archive of these files, with an entry for each folder as publishers' archives have."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=f"w:{mode}") as archive:
        for folder in dict.fromkeys(name.rpartition("/")[0] for name in files):
            if folder:
                entry = tarfile.TarInfo(folder)
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def zip_bytes(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of these files."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return made.getvalue()
