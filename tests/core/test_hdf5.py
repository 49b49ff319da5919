"""Datasets that the file does not hold, however small it is and however much it announces; files that can not grow."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcdd.core.hdf5 import missing, new_hdf5, other_format, whole

TERA = 1 << 40


def unwritten(file: h5py.File) -> Any:
    return file.create_dataset("x", (TERA,), "i8")


def sparse(file: h5py.File) -> Any:
    made = file.create_dataset("x", (TERA,), "i8", chunks=(1 << 10,))
    made[:10] = 1
    return made


def sparse_and_packed(file: h5py.File) -> Any:
    made = file.create_dataset("x", (TERA,), "i8", chunks=(1 << 10,), compression="gzip")
    made[:10] = 1
    return made


def packed_by_nothing(file: h5py.File) -> Any:
    """One chunk of 2 GiB, of which the file says that some bytes unfold to it."""
    made = file.create_dataset("x", (1 << 28,), "i8", chunks=(1 << 28,), compression="gzip")
    made.id.write_direct_chunk((0,), b"x" * 1000)
    return made


def packed_by(code: int, name: str) -> Any:
    """A dataset as the library of an unknown filter writes it."""

    def make(file: h5py.File) -> Any:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((4,))
        settings.set_filter(code, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((4,))
        made = h5py.Dataset(h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT64, space, settings))
        made.id.write_direct_chunk((0,), b"packed")
        return made

    return make


WRONG = {
    "never written": (unwritten, "stores 0 bytes, too few for its 8,796,093,022,208 bytes"),
    "some chunks": (sparse, "stores only 1 of the 1,073,741,824 chunks of its 8,796,093,022,208 bytes"),
    "some packed chunks": (
        sparse_and_packed,
        "stores only 1 of the 1,073,741,824 chunks of its 8,796,093,022,208 bytes",
    ),
    "few packed bytes": (packed_by_nothing, "stores 1,000 bytes, too few for its 2,147,483,648 bytes"),
    "unknown filter": (
        packed_by(32001, "blosc"),
        "is packed by the filter 32001 .*, which is not installed here; .*h5repack",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_the_file_does_not_hold(tmp_path: Path, make: Any, message: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        make(file)
    assert (tmp_path / "x.h5").stat().st_size < 1 << 20
    with h5py.File(tmp_path / "x.h5") as file, pytest.raises(ValueError, match=f"^/x {message}"):
        whole(file["x"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (7,), "maxshape": (None,)},
        {"chunks": (64,), "maxshape": (None,), "compression": "gzip", "shuffle": True},
        {"chunks": (64,), "maxshape": (None,), "compression": "lzf"},
        {"chunks": (1 << 16,), "maxshape": (None,), "compression": "gzip", "compression_opts": 9},
        {"chunks": (64,), "maxshape": (None,), "scaleoffset": 0},
        {"chunks": (64,), "maxshape": (None,), "fletcher32": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [0, 1, 64, 100_001])
def test_whatever_it_does_hold_is_read(tmp_path: Path, options: dict[str, Any], length: int) -> None:
    values = np.zeros(length, np.int64)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=values, **options)
        file["number"], file["nothing"] = 3.5, h5py.Empty("f4")
    with h5py.File(tmp_path / "x.h5") as file:
        assert whole(file["x"]).tolist() == values.tolist()
        assert whole(file["number"]) == 3.5
        assert missing(file["nothing"]) is None


def test_highly_compressed_zeros_are_accepted(tmp_path: Path) -> None:
    """1032 bytes of one: no filter that is here packs more."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        made = file.create_dataset("x", (1 << 26,), "u1", chunks=(1 << 24,), compression="gzip", compression_opts=9)
        made[:] = 0
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["x"].id.get_storage_size() < 70_000
        assert missing(file["x"]) is None


@pytest.mark.parametrize("version", [1, "1", b"1", np.bytes_(b"1"), np.int8(1)])
def test_the_number_of_a_format_may_be_text(tmp_path: Path, version: Any) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["format"] = version
        assert other_format(file, "format", 1) is None
        assert other_format(file, "format", 2) == "its format is 1"


@pytest.mark.parametrize("limit", [0, 100, 4096, 100_000])
def test_a_file_that_must_not_grow_is_an_error_of_the_system(tmp_path: Path, limit: int) -> None:
    """A limit on the size of files (`ulimit -f`) or of a file system fails where files are extended, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"), new_hdf5(tmp_path / "x.h5") as file:
            file["x"] = np.ones(50_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
