"""decisions.h5: content is read as it was written, and damaged files are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcdd.artifacts.predictions import SplitPredictions, read
from hpcdd.core.errors import UserError
from hpcdd.core.names import CLASSIFIERS, final

from ..artificial import make_predictions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_predictions().write(tmp_path / "decisions.h5")
    return tmp_path / "decisions.h5"


def test_everything_is_read_with_its_dtype(path: Path) -> None:
    written, loaded = make_predictions(), read(path)
    for field in dataclasses.fields(SplitPredictions):
        before, after = getattr(written, field.name), getattr(loaded, field.name)
        if isinstance(before, dict):
            assert list(before) == list(after)
        pairs = [(before[k], after[k]) for k in before] if isinstance(before, dict) else [(before, after)]
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)
            assert np.asarray(a).dtype == np.asarray(b).dtype
    assert loaded.is_whole
    assert loaded.predicted("dnn").tolist() == written.strategies["dnn"].argmax(1).tolist()


def test_nothing_to_show_and_volumes(tmp_path: Path) -> None:
    one = make_predictions(strategies=CLASSIFIERS, image_shape=(2, 3, 4, 5))
    one = dataclasses.replace(one, shown=one.shown[:0], images=one.images[:0], reasons=(), samples=1000)
    one.write(tmp_path / "f")
    loaded = read(tmp_path / "f")
    assert loaded.images.shape == (0, 2, 3, 4, 5)
    assert not loaded.is_whole


def test_the_final_strategy_is_what_the_training_leads_up_to() -> None:
    assert final(CLASSIFIERS) == "coherent_transfer"
    assert final(["global", "dnn", "average", "coherent_scratch"]) == "coherent_scratch"
    assert make_predictions(strategies=("average", "dnn")).final == "dnn"


def _set(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def apply(file: h5py.File) -> None:
        changed = change(file[name][...])
        del file[name]
        file[name] = changed

    return apply


def _huge(file: h5py.File) -> None:
    """A file of some kilobytes that asks for gigabytes."""
    del file["samples/images"]
    file.create_dataset("samples/images", (9, 1, 1 << 16, 1 << 16), "u1", chunks=(1, 1, 64, 64))


def _link(file: h5py.File) -> None:
    del file["labels"]
    file["labels"] = h5py.ExternalLink("elsewhere.h5", "/labels")


FAULTS: dict[str, Callable[[h5py.File], None]] = {
    "hpcdd_decisions_format": lambda file: file.attrs.__delitem__("hpcdd_decisions_format"),
    "its format is 7": lambda file: file.attrs.__setitem__("hpcdd_decisions_format", 7),
    "strategies/dnn is float64": _set("strategies/dnn", lambda a: a.astype(np.float64)),
    "strategies/average is float32": _set("strategies/average", lambda a: a[:-1]),
    "dnn is not among": lambda file: file.__delitem__("strategies/dnn"),
    "rows are not ascending": _set("rows", lambda a: a[::-1].copy()),
    "labels are not valid classes": _set("labels", lambda a: a + 1),
    "local predictions are not valid classes": _set("local/decisions", lambda a: a - 1),
    "NaN": _set("influence/dnn/gradient", lambda a: np.full_like(a, np.nan)),
    "not among the rows": _set("samples/rows", lambda a: a + 1000),
    "stores only 0 of the 9,437,184 chunks of its 38,654,705,664 bytes": _huge,
    "is a link": _link,
    "reasons are unknown": _set("samples/reason", lambda a: np.array([b"whim"] * len(a), dtype=h5py.string_dtype())),
    "damaged": lambda file: file.__delitem__("local"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_an_inconsistent_file_is_refused_in_one_line(path: Path, message: str) -> None:
    with h5py.File(path, "r+") as file:
        FAULTS[message](file)
    with pytest.raises(UserError) as refused:
        read(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_truncated_file_and_no_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="truncated"):
        read(path)
    path.unlink()
    with pytest.raises(UserError, match="not there"):
        read(path)
