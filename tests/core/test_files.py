"""Files that are written atomically, and checksums that fail when a bit flips."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from pydantic import BaseModel

from hpcdd.core import files
from hpcdd.core.errors import DamagedError, UserError
from hpcdd.core.files import atomic_write, clean_up, read_checksummed, read_json, write_bytes, write_checksummed
from hpcdd.core.hdf5 import new_hdf5

CONTENT = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}


def test_bytes_come_back_and_replace_what_was_there(tmp_path: Path) -> None:
    for content in (b"", b"one", bytes(range(256)) * 1000):
        write_bytes(tmp_path / "f", content)
        assert (tmp_path / "f").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_bytes(tmp_path / "f", b"before")

    def fail() -> None:
        with atomic_write(tmp_path / "f") as temporary:
            temporary.write_bytes(b"half")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("f", b"before")]


def test_a_checksum_fails_with_every_bit_that_matters(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_checksummed(path, CONTENT)
    assert read_checksummed(path) == CONTENT
    whole = path.read_bytes()
    for offset in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[offset] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                assert read_checksummed(path) == CONTENT
            except DamagedError:
                continue
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            read_checksummed(path)
    for content in (b"[1]", b"null", b"[" * 100_000, b'{"content": 1}'):
        path.write_bytes(content)
        with pytest.raises(DamagedError):
            read_checksummed(path)
    with pytest.raises(FileNotFoundError):
        read_checksummed(tmp_path / "nowhere")


def test_leftovers_of_killed_writers_go(tmp_path: Path) -> None:
    (tmp_path / ".f.json.123.tmp").touch()
    (tmp_path / "mine.tmp").touch()
    clean_up(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.tmp"]


@pytest.mark.parametrize("fails_after", [0, 1, 5, 12])
def test_a_full_disk_is_hidden_from_hdf5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_after: int) -> None:
    write, calls = os.write, [0]

    def full(descriptor: int, data: bytes) -> int:
        calls[0] += 1
        if calls[0] > fails_after:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    def fill() -> None:
        with atomic_write(tmp_path / "f.h5") as temporary, new_hdf5(temporary) as file:
            for number in range(20):
                file[f"{number}/x"] = np.arange(5000)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            fill()
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1000]))  # short writes
        fill()
    with h5py.File(tmp_path / "f.h5") as file:
        assert all((file[f"{number}/x"][:] == np.arange(5000)).all() for number in range(20))


class Point(BaseModel):
    x: float
    y: float


def test_a_json_file_is_read_with_a_line_for_each_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"x": 1, "y": 2, "more": 3}')
    assert read_json(path, Point) == Point(x=1, y=2)
    path.write_text('{"x": "a"}')
    with pytest.raises(UserError, match=r"p.json is damaged .*: x: Input .*\n.*p.json .*: y: Field required$"):
        read_json(path, Point)
    path.write_text("{")
    with pytest.raises(UserError, match="p.json is damaged or of another format: content: Invalid JSON"):
        read_json(path, Point)
    monkeypatch.setattr(files, "_MOST_BYTES", 30)
    with pytest.raises(UserError, match="/dev/zero has more than 30 bytes"):
        read_json(Path("/dev/zero"), Point)
