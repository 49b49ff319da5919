"""A dataset file with anything in its headers is read or refused by a UserError."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hpcdd.core.errors import UserError
from hpcdd.core.names import SPLITS
from hpcdd.data.format import inspect

from .row import CLASSES, write_good
from .test_fuzzed_configurations import FUZZED

Change = Callable[[h5py.File], Any]
DTYPES = st.sampled_from(["u1", "i1", "u2", "i2", ">i2", "f2", "f4", "f8", "i4", "i8", "u8", "c8", "?", "S3", "V4"])
SHAPES = st.lists(st.integers(0, 9), max_size=6).map(tuple) | st.sampled_from(
    [(24, 2, 8, 6), (24,), (12, 2, 8, 6), (12,)]
)
MEMBERS = st.sampled_from(
    [*SPLITS, *(f"{split}/{name}" for split in SPLITS for name in ("images", "labels", "coarse")), "else"]
)
ATTRIBUTES = st.sampled_from(["hpcdd_format", "name", "class_names", "mean", "std", "source", "licence"])
VALUES = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
    | arrays.arrays(st.sampled_from(["i8", "f8", "u1", "S2"]), st.sampled_from([(), (0,), (1,), (2,), (3,), (2, 2)]))
    | st.sampled_from([h5py.Empty("f8"), h5py.Empty("S1"), list(CLASSES), 1, [50.0, 50.0]])
)


def stored(member: str, shape: tuple[int, ...], dtype: str, chunked: bool) -> Change:
    """A dataset of zeros, in chunks if it can be."""
    chunks = chunked and bool(shape) and 0 not in shape
    return lambda file: file.create_dataset(member, shape, dtype, chunks=True if chunks else None)


def linked(member: str, target: str, kind: str) -> Change:
    """A link inside the file, to another one, to nowhere, or in a circle."""
    links = {"soft": h5py.SoftLink(target), "external": h5py.ExternalLink("good.h5", target)}
    return lambda file: file.__setitem__(member, links[kind] if kind in links else file[target])


REPLACEMENTS = st.one_of(
    st.builds(stored, MEMBERS, SHAPES, DTYPES, st.booleans()),
    st.builds(lambda member: lambda file: file.create_group(member), MEMBERS),
    st.builds(
        linked, MEMBERS, MEMBERS | st.sampled_from(["/", "nowhere"]), st.sampled_from(["soft", "external", "hard"])
    ),
    st.builds(lambda member: lambda file: file.create_dataset(member, data=h5py.Empty("u1")), MEMBERS),
    st.builds(lambda member: lambda file: file.create_dataset(member, data=["a", "b"]), MEMBERS),
)
CHANGES = st.one_of(
    st.tuples(MEMBERS, REPLACEMENTS).map(lambda both: lambda file: (file.pop(both[0], None), both[1](file))),
    st.builds(lambda member: lambda file: file.__delitem__(member), MEMBERS),
    st.builds(lambda name, value: lambda file: file.attrs.__setitem__(name, value), ATTRIBUTES, VALUES),
    st.builds(lambda name: lambda file: file.attrs.__delitem__(name), ATTRIBUTES),
    st.builds(
        lambda split, row, label: lambda file: file[f"{split}/labels"].__setitem__(row, label),
        st.sampled_from(["train", "test"]),
        st.integers(0, 11),
        st.integers(-(2**63), 2**63 - 1),
    ),
    st.builds(
        lambda split, block: (
            lambda file: (
                file.create_dataset(f"{split}/coarse", (24 if split == "train" else 12, 2, 4, 3), "u1"),
                file[f"{split}/coarse"].attrs.__setitem__("block", block),
            )
        ),
        st.sampled_from(["train", "test"]),
        VALUES | st.just([2, 2]),
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzzed")
    write_good(path / "good.h5")
    return path


def check(path: Path) -> None:
    with contextlib.suppress(UserError):
        info = inspect(path)
        assert {"train", "test"} <= set(info.samples)
        assert all(labels.min() >= 0 and labels.max() < info.num_classes for labels in info.labels.values())
        assert np.isfinite([info.mean, info.std]).all()


@pytest.mark.slow
@settings(FUZZED, max_examples=400)
@given(changes=st.lists(CHANGES, min_size=1, max_size=4))
def test_headers(folder: Path, changes: list[Change]) -> None:
    path = folder / "headers.h5"
    shutil.copy(folder / "good.h5", path)
    with h5py.File(path, "r+") as file:
        for change in changes:
            # h5py refuses some.
            with contextlib.suppress(LookupError, ArithmeticError, ValueError, TypeError, OSError, RuntimeError):
                change(file)
    check(path)


@settings(FUZZED, max_examples=300)
@given(at=st.integers(0, 1 << 20), change=st.binary(min_size=1, max_size=12), kept=st.none() | st.integers(0, 1 << 14))
def test_bytes(folder: Path, at: int, change: bytes, kept: int | None) -> None:
    content = bytearray((folder / "good.h5").read_bytes())
    at %= len(content)
    content[at : at + len(change)] = change
    path = folder / "bytes.h5"
    path.write_bytes(content[:kept])
    check(path)
