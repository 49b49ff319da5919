"""CIFAR archives, built byte by byte as their publisher's scripts wrote them: records, and pickles of Python 2."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers import cifar10, cifar100, cifar_pickle

from .sources import pixels_of, read, tar_bytes, write_files, zip_bytes

NAMES = ["airplane", "automobile", "bird"]
ROWS = 2


def pixels(seed: int, rows: int = ROWS) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (rows, 3072)).astype(np.uint8)


def text(value: str) -> bytes:
    """SHORT_BINSTRING, as Python 2 pickles a str."""
    return b"U" + bytes([len(value)]) + value.encode()


def strings(values: list[str]) -> bytes:
    return b"](" + b"".join(map(text, values)) + b"e"


def integers(values: list[int]) -> bytes:
    return b"](" + b"".join(b"K" + bytes([v]) for v in values) + b"e"


def array(values: np.ndarray[Any, Any], *, dtype: str = "u1") -> bytes:
    """A uint8 array as numpy pickled it under Python 2, protocol 2."""
    content = values.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85" + text("b") + b"\x87R"
        b"(K\x01" + b"J" + struct.pack("<i", len(values)) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n"
        + text(dtype)
        + b"K\x00K\x01\x87R(K\x03"
        + text("|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + struct.pack("<i", len(content)) + content + b"tb"
    )


def dictionary(items: dict[str, bytes]) -> bytes:
    return b"\x80\x02}q\x01(" + b"".join(text(key) + value for key, value in items.items()) + b"u."


def batch(seed: int, labels: list[int]) -> bytes:
    return dictionary(
        {
            "batch_label": text("training batch 1 of 5"),
            "labels": integers(labels),
            "data": array(pixels(seed)),
            "filenames": strings(["a.png", "b.png"]),
        }
    )


def python10() -> dict[str, bytes]:
    root = "cifar-10-batches-py"
    made = {f"{root}/data_batch_{n}": batch(n, [n % 3, 2]) for n in (1, 2, 3, 4, 5)}
    meta = {"num_cases_per_batch": b"M\x10'", "label_names": strings(NAMES), "num_vis": b"M\x00\x0c"}
    return made | {f"{root}/test_batch": batch(6, [0, 1]), f"{root}/batches.meta": dictionary(meta)}


def binary10() -> dict[str, bytes]:
    def records(seed: int, labels: list[int]) -> bytes:
        return b"".join(bytes([label]) + row.tobytes() for label, row in zip(labels, pixels(seed), strict=True))

    root = "cifar-10-batches-bin"
    made = {f"{root}/data_batch_{n}.bin": records(n, [n % 3, 2]) for n in (1, 2, 3, 4, 5)}
    names = ("\n".join(NAMES) + "\n\n").encode()
    return made | {f"{root}/test_batch.bin": records(6, [0, 1]), f"{root}/batches.meta.txt": names}


def python100() -> dict[str, bytes]:
    def split(seed: int) -> bytes:
        return dictionary(
            {
                "filenames": strings(["a", "b"]),
                "fine_labels": integers([2, 1]),
                "coarse_labels": integers([0, 1]),
                "data": array(pixels(seed)),
            }
        )

    meta = {"fine_label_names": strings(["apple", "baby", "bear"]), "coarse_label_names": strings(["fruit", "animal"])}
    root = "cifar-100-python"
    return {f"{root}/meta": dictionary(meta), f"{root}/test": split(2), f"{root}/train": split(1)}


def binary100() -> dict[str, bytes]:
    def split(seed: int) -> bytes:
        rows = pixels(seed)
        return bytes([0, 2]) + rows[0].tobytes() + bytes([1, 1]) + rows[1].tobytes()

    root = "cifar-100-binary"
    return {
        f"{root}/coarse_label_names.txt": b"fruit\nanimal\n",
        f"{root}/fine_label_names.txt": b"apple\nbaby\nbear\n",
        f"{root}/test.bin": split(2),
        f"{root}/train.bin": split(1),
    }


@pytest.mark.parametrize("kind", ["gz", "xz", "", "zip", "folder"])
@pytest.mark.parametrize("files", [python10(), binary10()], ids=["python", "binary"])
def test_cifar10(tmp_path: Path, files: dict[str, bytes], kind: str) -> None:
    source = tmp_path / "source"
    if kind == "folder":
        write_files(source, files)
    else:
        source.write_bytes(zip_bytes(files) if kind == "zip" else tar_bytes(files, kind))
    imported = read(cifar10, source)
    assert (imported.name, imported.class_names) == ("CIFAR-10", tuple(NAMES))
    train, test = imported.splits["train"], imported.splits["test"]
    assert train.labels.tolist() == [1, 2, 2, 2, 0, 2, 1, 2, 2, 2]
    assert test.labels.tolist() == [0, 1]
    assert (train.image_shape, train.dtype) == ((3, 32, 32), "uint8")
    assert np.array_equal(pixels_of(train), np.concatenate([pixels(n) for n in range(1, 6)]).reshape(-1, 3, 32, 32))
    assert np.array_equal(pixels_of(test), pixels(6).reshape(-1, 3, 32, 32))
    some = np.array([0, 3, 9])
    assert np.array_equal(pixels_of(train.select(some)), pixels_of(train)[some])
    if kind != "folder":
        assert list(tmp_path.iterdir()) == [source]  # nothing was extracted


@pytest.mark.parametrize("files", [python100(), binary100()], ids=["python", "binary"])
def test_cifar100_with_both_labels(tmp_path: Path, files: dict[str, bytes]) -> None:
    source = tmp_path / "cifar-100.tar.gz"
    source.write_bytes(tar_bytes(files))
    fine, coarse = (read(cifar100, source, labels=labels) for labels in ("fine", "coarse"))
    assert fine.class_names == ("apple", "baby", "bear")
    assert coarse.class_names == ("fruit", "animal")
    assert fine.splits["train"].labels.tolist() == [2, 1]
    assert coarse.splits["test"].labels.tolist() == [0, 1]
    assert np.array_equal(pixels_of(fine.splits["train"]), pixels(1).reshape(-1, 3, 32, 32))


def changed(files: dict[str, bytes], name: str, content: bytes | None) -> dict[str, bytes]:
    made = {key: value for key, value in files.items() if not key.endswith(f"/{name}")}
    return made if content is None else made | {f"{next(iter(files)).partition('/')[0]}/{name}": content}


PYTHON, BINARY = python10(), binary10()
GOOD = BINARY["cifar-10-batches-bin/data_batch_2.bin"]
TEST = PYTHON["cifar-10-batches-py/test_batch"]
BAD = {
    "a batch is missing": (changed(BINARY, "data_batch_3.bin", None), r"lacks data_batch_3\.bin of CIFAR-10"),
    "another data set": (python100(), "is not CIFAR-10: it contains the files of no release"),
    "a record is cut": (changed(BINARY, "data_batch_2.bin", GOOD[:-1]), r"data_batch_2\.bin is damaged: 6,145 bytes"),
    "empty": (changed(BINARY, "data_batch_2.bin", b""), r"data_batch_2\.bin is damaged: 0 bytes"),
    "label": (changed(BINARY, "data_batch_2.bin", b"\x07" + GOOD[1:]), "holds the label 7, but there are 3 classes"),
    "no names": (changed(BINARY, "batches.meta.txt", b"\n"), r"batches\.meta\.txt is damaged: it names 0 classes"),
    "a pickle is cut": (
        changed(PYTHON, "test_batch", TEST[:-9]),
        "test_batch is not a batch of a CIFAR Python archive",
    ),
    "no pickle": (changed(PYTHON, "test_batch", b"\xff\xd8"), "test_batch is not a batch"),
    "a list": (changed(PYTHON, "test_batch", b"\x80\x02]."), "it holds a list, not a dict"),
    "no array": (changed(PYTHON, "test_batch", dictionary({"labels": integers([1])})), "it holds no array 'data'"),
    "labels": (
        changed(PYTHON, "test_batch", dictionary({"labels": integers([1]), "data": array(pixels(0))})),
        "its 'labels' are not 2 small integers",
    ),
    "floats": (
        changed(PYTHON, "test_batch", dictionary({"labels": integers([1]), "data": array(pixels(0), dtype="f4")})),
        "it holds an array of type f4, not of integers",
    ),
}


@pytest.mark.parametrize(("files", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_archive_is_reported(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    source = tmp_path / "cifar.tar"
    source.write_bytes(tar_bytes(files, ""))
    with pytest.raises(UserError, match=message) as caught:
        read(cifar10, source)
    assert str(source) in str(caught.value)


class Evil:
    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.made),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    content = pickle.dumps({"data": Evil(made), "labels": [1]}, protocol)
    with pytest.raises(UserError, match=r"x is not a batch of a CIFAR Python archive: it .* don't trust it"):
        cifar_pickle.load(content, "x")
    assert not made.exists()
    pickle.loads(content)
    assert made.exists()  # it would have


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"(S'import os'\nibuiltins\nexec\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02Pid\n.",  # PERSID
        b"\x80\x02}r\xff\xff\xff\x7f.",  # LONG_BINPUT of 2^31 - 1: 16 GiB of memo
        b"}p99999999999\n.",
        b"cnumpy\nndarray\n}b.",
    ],
)
def test_other_ways_out_of_a_pickle_are_closed(content: bytes) -> None:
    with pytest.raises(UserError, match="x is not a batch"):
        cifar_pickle.load(content, "x")


@pytest.mark.parametrize("keys", [str, str.encode], ids=["text", "bytes"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_how_python3_writes_the_same_is_read_too(tmp_path: Path, protocol: int, keys: Any) -> None:
    def batch(seed: int, labels: Any) -> bytes:
        return pickle.dumps({keys("data"): pixels(seed), keys("labels"): labels}, protocol)

    listed = [[1, 2], (2, 0), np.array([0, 2]), np.array([1, 2], ">i2"), [np.int64(2), 2]]
    files = {f"data_batch_{n}": batch(n, labels if n != 2 else list(labels)) for n, labels in enumerate(listed, 1)}
    files["test_batch"] = batch(6, [0, 1])
    files["batches.meta"] = pickle.dumps({keys("label_names"): list(map(keys, NAMES))}, protocol)
    imported = read(cifar10, write_files(tmp_path, files))
    assert imported.class_names == tuple(NAMES)
    assert imported.splits["train"].labels.tolist() == [1, 2, 2, 0, 0, 2, 1, 2, 2, 2]
    assert np.array_equal(pixels_of(imported.splits["test"]), pixels(6).reshape(-1, 3, 32, 32))


@settings(deadline=None, max_examples=100)
@given(at=st.integers(0, 400), byte=st.integers(0, 255), kept=st.one_of(st.none(), st.integers(0, 400)))
def test_fuzzed_pickles(at: int, byte: int, kept: int | None) -> None:
    content = bytearray(dictionary({"labels": integers([1]), "data": array(pixels(0, 1)[:, :1])}))
    content[at % len(content)] = byte
    try:
        loaded = cifar_pickle.load(bytes(content[:kept]), "x")
    except UserError:
        return
    assert isinstance(loaded, dict)
