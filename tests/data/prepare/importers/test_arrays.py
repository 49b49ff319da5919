"""Arrays by name: .npy files byte by byte, .npz archives of these; what lies or would run code."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.core import environment
from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers import npy, npz, row_stream

from .sources import pixels_of, read, write_files, zip_bytes


def raw(header: str, body: bytes, version: int = 1) -> bytes:
    """NumPy's format: magic, version, length of the header, header, numbers."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + body


def npy_bytes(array: np.ndarray[Any, Any], version: int = 1) -> bytes:
    header = f"{{'descr': {array.dtype.str!r}, 'fortran_order': False, 'shape': {array.shape}, }}"
    return raw(header, array.tobytes(), version)


def images(n: int, *shape: int, dtype: str = "uint8") -> np.ndarray[Any, Any]:
    return np.random.default_rng(n).integers(0, 200, (n, *shape)).astype(dtype)


def labels(n: int) -> np.ndarray[Any, Any]:
    """As MedMNIST stores them."""
    return (np.arange(n, dtype=np.uint8) % 2)[:, None]


def medmnist(*shape: int) -> dict[str, np.ndarray[Any, Any]]:
    made = {}
    for split, n in (("train", 8), ("val", 3), ("test", 4)):
        made[f"{split}_images"], made[f"{split}_labels"] = images(n, *shape), labels(n)
    return made


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "Validation", "Testing")])
def test_names_of_splits_are_those_of_folders(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = {
        f"{name}_{what}": array
        for name in names
        for what, array in (("images", images(4, 6, 5)), ("labels", labels(4)))
    }
    np.savez(tmp_path / "a.npz", **arrays, extra=labels(2))  # type: ignore[arg-type]
    imported = read(npz, tmp_path / "a.npz")
    assert list(imported.splits) == ["train", "validation", "test"]
    assert "not used: arrays extra" in imported.notes


def test_two_names_of_one_split_are_refused(tmp_path: Path) -> None:
    arrays = medmnist(6, 5)
    np.savez(tmp_path / "a.npz", **arrays, valid_images=images(3, 6, 5), valid_labels=labels(3))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="holds both val and valid, which both name the same split"):
        read(npz, tmp_path / "a.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("shape", "stored"), [((6, 5), (1, 6, 5)), ((6, 5, 3), (3, 6, 5)), ((7, 6, 5), (1, 7, 6, 5))], ids=str
)
def test_medmnist(tmp_path: Path, shape: tuple[int, ...], stored: tuple[int, ...], compression: int) -> None:
    arrays = medmnist(*shape)
    source = tmp_path / "pneumoniamnist.npz"
    source.write_bytes(zip_bytes({f"{name}.npy": npy_bytes(a) for name, a in arrays.items()}, compression))
    imported = read(npz, source)
    assert list(imported.splits) == ["train", "validation", "test"]
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        part, original = imported.splits[split], arrays[f"{name}_images"]
        assert (part.image_shape, part.dtype) == (stored, "uint8")
        assert part.labels.tolist() == [i % 2 for i in range(len(original))]
        moved = np.moveaxis(original, -1, 1) if shape[-1] == 3 else original[:, None]
        assert np.array_equal(pixels_of(part), moved)


def test_other_names_versions_and_dtypes(tmp_path: Path) -> None:
    """As Keras' mnist.npz names them; half a dozen dtypes, big-endian among them."""
    for dtype, stored in (
        ("<f8", "float32"),
        (">u2", "uint16"),
        ("<i2", "int16"),
        ("|b1", "uint8"),
        ("<f4", "float32"),
    ):
        x = images(6, 4, 4).astype(dtype)
        files = {"x_train.npy": npy_bytes(x, 2), "y_train.npy": npy_bytes(labels(6)[:, 0].astype(">i8"))}
        (tmp_path / "a.npz").write_bytes(zip_bytes(files))
        train = read(npz, tmp_path / "a.npz").splits["train"]
        assert train.dtype == stored
        assert np.array_equal(pixels_of(train)[:, 0], x)
        named = read(npz, tmp_path / "a.npz", images="x_{split}", labels="y_{split}", layout="NHW")
        assert np.array_equal(pixels_of(named.splits["train"]), pixels_of(train))


@pytest.mark.parametrize(
    ("shape", "layout", "note"),
    [
        ((6, 5), None, "array (6, 6, 5) read as NHW: images of 6 x 5, channels: 1"),
        ((5, 7, 3), None, "array (6, 5, 7, 3) read as NHWC: images of 5 x 7, channels: 3"),
        (
            (16, 15, 4),
            None,
            "array (6, 16, 15, 4) read as NDHW: volumes of 16 x 15 x 4, channels: 1; if one of these axes holds the "
            "channels, use --layout NHWC or NCHW",
        ),
        ((16, 15, 4), "NHWC", "array (6, 16, 15, 4) read as NHWC: images of 16 x 15, channels: 4"),
        (
            (4, 5, 6, 2),
            None,
            "array (6, 4, 5, 6, 2) read as NCDHW: volumes of 5 x 6 x 2, channels: 4; if one of these axes holds the "
            "channels, use --layout NDHWC",
        ),
    ],
)
def test_how_the_axes_were_read_is_reported(tmp_path: Path, shape: Any, layout: str | None, note: str) -> None:
    files = {"images.npy": npy_bytes(images(6, *shape)), "labels.npy": npy_bytes(labels(6))}
    assert read(npy, write_files(tmp_path, files), layout=layout).notes == [note]


def test_a_folder_of_npy_files_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_stream, "_BLOCK_BYTES", 3 * 60)
    x = images(10, 3, 4, 5)
    write_files(tmp_path, {"volumes.npy": npy_bytes(x), "grades.npy": npy_bytes(labels(10)), "notes.txt": b""})
    imported = read(npy, tmp_path, images="volumes", labels="grades", layout="NDHW")
    train = imported.splits["train"]
    assert train.image_shape == (1, 3, 4, 5)
    assert [len(block) for block in train.rows(np.arange(10), lambda _: None)] == [3, 3, 3, 1]
    some = np.array([1, 2, 9])
    assert np.array_equal(pixels_of(train.select(some))[:, 0], x[some])


class Evil:
    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.made,)


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    made = tmp_path / "made"
    evil = raw("{'descr': '|O', 'fortran_order': False, 'shape': (4,), }", pickle.dumps(Evil(made)))
    files = {"train_images.npy": evil, "train_labels.npy": npy_bytes(labels(4))}
    (tmp_path / "a.npz").write_bytes(zip_bytes(files))
    with pytest.raises(UserError, match=r"a\.npz: train_images\.npy holds object, .* pickled objects are never loaded"):
        read(npz, tmp_path / "a.npz")
    assert not made.exists()


X, Y = images(4, 5, 5), labels(4)
BAD = {
    "text": (b"hello", Y, "is not an array in NumPy's format"),
    "cut": (npy_bytes(X)[:-1], Y, "is damaged: .* it ends before them"),
    "too long": (npy_bytes(X) + b"x", Y, "is damaged: it holds more"),
    "version": (npy_bytes(X).replace(b"NUMPY\1", b"NUMPY\7"), Y, "is of version"),
    "columns": (
        raw("{'descr': '|u1', 'fortran_order': True, 'shape': (4, 5, 5), }", X.tobytes()),
        Y,
        "column by column",
    ),
    "absurd": (raw("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 99999, 99999), }", b""), Y, "is damaged"),
    "more absurd": (raw(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({1 << 40}, 5), }}", b""), Y, "claims"),
    "negative": (
        raw("{'descr': '|u1', 'fortran_order': False, 'shape': (4, -5, 5), }", b""),
        Y,
        "claims|not an array",
    ),
    "code": (raw("__import__('os').getcwd()", b""), Y, "is not an array in NumPy's format"),
    "empty": (npy_bytes(X[:0]), Y[:0], "is empty"),
    "records": (raw("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (4, 5, 5), }", b""), Y, "not numbers"),
    "complex": (npy_bytes(X.astype(np.complex64)), Y, "is complex64; convert it to one of uint8"),
    "int64": (npy_bytes(X.astype(np.int64)), Y, "is int64; convert it to one of"),
    "two axes": (npy_bytes(X.reshape(4, 25)), Y, r"has the shape \(4, 25\); images have three to five axes"),
    "number of labels": (npy_bytes(X), Y[:3], "holds 4 images, but .* 3 labels"),
    "labels of several columns": (npy_bytes(X), np.zeros((4, 14), np.uint8), "must hold one integer per image"),
    "float labels": (npy_bytes(X), Y.astype(np.float32), "must hold one integer per image"),
}


def test_no_more_labels_are_read_than_a_data_set_has(tmp_path: Path) -> None:
    """A megabyte of a zip archive can hold a thousand of them."""
    head = "{{'descr': '|u1', 'fortran_order': False, 'shape': {}, }}"
    n = 1 << 30
    files = {"images.npy": raw(head.format((n, 1, 1)), b""), "labels.npy": raw(head.format((n,)), b"")}
    (tmp_path / "a.npz").write_bytes(zip_bytes(files))
    with pytest.raises(UserError, match=r"labels\.npy claims 1,073,741,824 labels; 67,108,864 is the limit"):
        read(npz, tmp_path / "a.npz")


def test_labels_that_memory_has_no_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"images.npy": npy_bytes(X), "labels.npy": npy_bytes(Y)}
    (tmp_path / "a.npz").write_bytes(zip_bytes(files))
    monkeypatch.setattr(environment, "available_memory", lambda: 0)
    monkeypatch.setattr(environment, "_ALWAYS_THERE", 0)
    with pytest.raises(UserError, match=r"claims 4 labels: 0\.0 GiB of memory are needed, but 0\.0 GiB are free"):
        read(npz, tmp_path / "a.npz")


@pytest.mark.parametrize(("content", "y", "message"), BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("kind", [npz, npy], ids=["npz", "npy"])
def test_a_bad_array_is_named(tmp_path: Path, kind: Any, content: bytes, y: np.ndarray[Any, Any], message: str) -> None:
    files = {"train_images.npy": content, "train_labels.npy": npy_bytes(y)}
    source = tmp_path / "source"
    if kind is npz:
        source.write_bytes(zip_bytes(files))
    else:
        write_files(source, files)
    with pytest.raises(UserError, match=message) as caught:
        pixels_of(read(kind, source).splits["train"])
    assert str(source) in str(caught.value)


def test_bad_archives_and_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is not there"):
        read(npz, tmp_path / "none")
    with pytest.raises(UserError, match="is a folder; name an .npz file"):
        read(npz, tmp_path)
    with pytest.raises(UserError, match="none is not a folder; name one with files such as"):
        read(npy, tmp_path / "none")
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 not really")
    with pytest.raises(UserError, match=r"bad\.npz is not an \.npz archive that can be read"):
        read(npz, tmp_path / "bad.npz")
    (tmp_path / "a.npz").write_bytes(zip_bytes({"a.npy": npy_bytes(X), "b.npy": npy_bytes(Y)}))
    with pytest.raises(UserError, match="its arrays are a, b: use --images NAME --labels NAME"):
        read(npz, tmp_path / "a.npz")
    with pytest.raises(UserError, match="give both --images and --labels"):
        read(npz, tmp_path / "a.npz", images="a")
    with pytest.raises(UserError, match="--layout is NDHW, but .* has the shape"):
        read(npz, tmp_path / "a.npz", images="a", labels="b", layout="NDHW")
    (tmp_path / "t.npz").write_bytes(zip_bytes({"test_images.npy": npy_bytes(X), "test_labels.npy": npy_bytes(Y)}))
    with pytest.raises(UserError, match="holds the splits test, but no training split"):
        read(npz, tmp_path / "t.npz")


ARCHIVE = zip_bytes({"train_images.npy": npy_bytes(X), "train_labels.npy": npy_bytes(Y)}, zipfile.ZIP_STORED)


@settings(max_examples=100)
@given(at=st.integers(0, len(ARCHIVE) - 1), change=st.binary(min_size=1, max_size=6), cut=st.integers(0, 20))
def test_fuzzed_archives(tmp_path_factory: pytest.TempPathFactory, at: int, change: bytes, cut: int) -> None:
    content = bytearray(ARCHIVE)
    content[at : at + len(change)] = change
    path = tmp_path_factory.getbasetemp() / "fuzzed.npz"
    path.write_bytes(content[: len(content) - (cut if cut < 10 else 0)])
    try:
        train = read(npz, path).splits["train"]
        assert len(pixels_of(train)) == len(train.labels)
    except UserError as error:
        assert "fuzzed" in str(error)  # noqa: PT017 - what comes out is either images or this


@settings(max_examples=100)
@given(at=st.integers(6, 140), change=st.binary(min_size=1, max_size=4))
def test_fuzzed_headers(tmp_path_factory: pytest.TempPathFactory, at: int, change: bytes) -> None:
    content = bytearray(npy_bytes(X))
    content[at : at + len(change)] = change
    folder = write_files(
        tmp_path_factory.getbasetemp() / "fuzzed-arrays",
        {"train_images.npy": bytes(content), "train_labels.npy": npy_bytes(Y)},
    )
    try:
        pixels_of(read(npy, folder).splits["train"])
    except UserError as error:
        assert "fuzzed" in str(error)  # noqa: PT017
