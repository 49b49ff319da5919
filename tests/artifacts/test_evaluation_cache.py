"""What evaluations have found: there for the next job, or as if it had never been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcdd.artifacts.evaluation_cache import EvaluationCache

PIECES = {"strategies/dnn": np.eye(3, dtype=np.float32), "local/decisions": np.arange(6, dtype=np.int32).reshape(3, 2)}
FOUND = {"accuracy": {"test": {"dnn": 0.5}}, "costs": {}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cache = EvaluationCache(tmp_path, "run")
    for phase in ("dnn", "coherent_transfer"):
        cache.add(phase, dict(FOUND), PIECES)
    return tmp_path


def test_the_next_job_has_them(folder: Path) -> None:
    cache = EvaluationCache(folder, "run")
    assert set(cache.phases) == set(cache.pieces) == {"dnn", "coherent_transfer"}
    assert cache.phases["dnn"]["accuracy"] == FOUND["accuracy"]
    for place, values in PIECES.items():
        np.testing.assert_array_equal(cache.pieces["dnn"][place], values)
        assert cache.pieces["dnn"][place].dtype == values.dtype


def test_another_run_has_none(folder: Path) -> None:
    assert EvaluationCache(folder, "other").phases == {}


@pytest.mark.parametrize("what", ["flipped", "short", "gone"])
def test_a_phase_with_damaged_pieces_is_found_again(folder: Path, what: str) -> None:
    path = folder / "examined/dnn.h5"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content if what == "flipped" else content[:100])
    if what == "gone":
        path.unlink()
    cache = EvaluationCache(folder, "run")
    assert list(cache.phases) == list(cache.pieces) == ["coherent_transfer"]


def test_what_is_dropped_is_gone_for_good(folder: Path) -> None:
    EvaluationCache(folder, "run").drop(["coherent"])
    assert list(EvaluationCache(folder, "run").phases) == ["dnn"]
