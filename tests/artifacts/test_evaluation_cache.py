"""The cache of evaluations: read by the next job; damaged or foreign entries count as missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcdd.artifacts.evaluation_cache import EvaluationCache

ARRAYS = {"strategies/dnn": np.eye(3, dtype=np.float32), "local/decisions": np.arange(6, dtype=np.int32).reshape(3, 2)}
EVALUATION = {"accuracy": {"test": {"dnn": 0.5}}, "costs": {}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cache = EvaluationCache(tmp_path, "run")
    for phase in ("dnn", "coherent_transfer"):
        cache.add(phase, dict(EVALUATION), ARRAYS)
    return tmp_path


def test_the_next_job_reads_them(folder: Path) -> None:
    cache = EvaluationCache(folder, "run")
    assert set(cache.phases) == set(cache.arrays) == {"dnn", "coherent_transfer"}
    assert cache.phases["dnn"]["accuracy"] == EVALUATION["accuracy"]
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(cache.arrays["dnn"][name], values)
        assert cache.arrays["dnn"][name].dtype == values.dtype


def test_another_run_has_none(folder: Path) -> None:
    assert EvaluationCache(folder, "other").phases == {}


@pytest.mark.parametrize("what", ["flipped", "short", "gone"])
def test_a_phase_with_damaged_arrays_is_evaluated_again(folder: Path, what: str) -> None:
    path = folder / "examined/dnn.npz"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content if what == "flipped" else content[:100])
    if what == "gone":
        path.unlink()
    cache = EvaluationCache(folder, "run")
    assert list(cache.phases) == list(cache.arrays) == ["coherent_transfer"]


def test_a_phase_whose_arrays_an_older_revision_wrote_is_evaluated_again(folder: Path) -> None:
    (folder / "examined/dnn.npz").rename(folder / "examined/dnn.h5")
    assert list(EvaluationCache(folder, "run").phases) == ["coherent_transfer"]


def test_dropped_phases_are_not_read_by_the_next_job(folder: Path) -> None:
    EvaluationCache(folder, "run").drop(["coherent_transfer", "coherent_scratch"])
    assert list(EvaluationCache(folder, "run").phases) == ["dnn"]
