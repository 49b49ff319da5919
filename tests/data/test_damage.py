"""A damaged dataset file is refused, or the damage lies where nobody reads: never a wrong answer, never a hang."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcdd.data.format import EMBEDDED
from hpcdd.data.writing import Split, write_dataset

from ..waiting import LIMIT

DAMAGE = Path(__file__).parent / "damage.py"
FILES: dict[str, dict[str, Any]] = {
    "plain, chunks of boxes": {"compression": 0, "chunk": (3, 4)},
    "gzip, coarse images": {"compression": 4, "coarse": (2, 2)},
}


def write(path: Path, **options: Any) -> None:
    """A small file with all that a file can have."""
    generator = np.random.default_rng(0)
    splits = {
        name: Split.from_array(generator.integers(0, 40, (n, 2, 6, 7)).astype(np.uint8), np.arange(n) % 3)
        for name, n in (("train", 12), ("validation", 3), ("test", 6))
    }
    write_dataset(path, splits, name="dä", class_names=["ant", "bee", "cat"], source="s", licence="l", **options)


def damage_all(folder: Path, step: int, bits: int) -> None:
    """Damages both files, side by side."""
    jobs = []
    for number, options in enumerate(FILES.values()):
        write(folder / f"{number}.h5", **options)
        arguments = [DAMAGE, folder / f"{number}.h5", str(number), str(step), str(bits)]
        jobs.append(
            subprocess.Popen(
                [sys.executable, *arguments],
                cwd=DAMAGE.parents[2],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for job, name in zip(jobs, FILES, strict=True):
        try:
            out, err = job.communicate(timeout=6 * LIMIT)
        finally:
            job.kill()
        assert job.returncode == 0, f"{name}: {err}"
        counts = json.loads(out)
        assert counts.keys() == {"refused", "unchanged"}
        assert counts["refused"] > 2 * counts["unchanged"]  # HDF5 leaves room in its structure
        assert sum(counts.values()) > 8000 * bits // step


@pytest.mark.slow
def test_flipped_bits_and_files_that_were_cut(tmp_path: Path) -> None:
    damage_all(tmp_path, step=12, bits=1)


@pytest.mark.exhaustive
def test_every_bit(tmp_path: Path) -> None:
    damage_all(tmp_path, step=1, bits=8)


def test_the_embedded_file_is_the_one_that_was_written() -> None:
    assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() == (
        "46ca73026be31f29e4fbefac2d33c8f099840365f9793ad6db1db6a30e590bc2"
    )
