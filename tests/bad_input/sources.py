"""Wrong data sets for ``hpcdd prepare``."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from ..data.sources import tar_bytes, write_files, zip_bytes
from .row import CODE, Make, Row, folder, text


class Evil:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (CODE,)


EVIL = pickle.dumps(Evil(), protocol=2)
CIFAR = [f"data_batch_{number}" for number in range(1, 6)]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)


def given(kind: str, *words: str, source: str = "source") -> tuple[str, ...]:
    """A command that makes d.h5."""
    return ("prepare", kind, source, "d.h5", *words)


def files(content: dict[str, bytes]) -> Make:
    """The folder ``source`` with these files."""
    return lambda: write_files(Path("source"), content) and None


def npy(array: object) -> bytes:
    """An array in NumPy's format, of objects by a pickle."""
    made = io.BytesIO()
    np.save(made, np.asarray(array), allow_pickle=True)
    return made.getvalue()


def tar_link(kind: bytes, target: str) -> bytes:
    """An archive of images one of which is a link to a file outside."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in ("a/0.png", "b/0.png"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            archive.addfile(entry)
    return made.getvalue()


IMAGES = {f"{label}/{i}.png": PNG for label in "ab" for i in range(4)}
ARRAYS = {"images.npy": npy(np.arange(200, dtype=np.uint8).reshape(8, 5, 5)), "labels.npy": npy(np.arange(8) % 2)}
CIFAR_FILES = {name: EVIL for name in [*CIFAR, "test_batch", "batches.meta"]}
IDX = "source is not a folder; name the one that holds train-images-idx3-ubyte and its three siblings"

SOURCES = [
    Row("source missing: cifar10", given("cifar10"), "?"),
    Row("source missing: cifar100", given("cifar100"), "?"),
    Row("source missing: faces", given("faces"), "?"),
    Row("source missing: folder", given("folder"), "?", mpirun=True),
    Row("source missing: idx", given("idx"), "?"),
    Row("source missing: nifti", given("nifti"), "?"),
    Row("source missing: npy", given("npy"), "?"),
    Row("source missing: npz", given("npz"), "?"),
    Row("too few phantoms", ("prepare", "phantom", "d.h5", "--samples", "3"), "?"),
    Row("archive of something else: cifar10", given("cifar10"), "?", text(tar_bytes({"a/readme": b"x"}), "source")),
    Row("archive of something else: cifar100", given("cifar100"), "?", text(zip_bytes({"readme": b"x"}), "source")),
    Row("a release without all its files", given("cifar10"), "?", files({f"{n}.bin": b"" for n in CIFAR})),
    Row("no archive at all", given("folder"), "?", text("some text", "source")),
    Row("truncated archive", given("folder"), "?", text(tar_bytes(IMAGES)[:80], "source")),
    Row("folder without images", given("folder"), "?", files({"a/readme.txt": b"x"})),
    Row("images of one class", given("folder"), "?", files({"a/0.png": PNG, "a/1.png": PNG})),
    Row("file that is no image", given("folder"), "?", files({**IMAGES, "a/2.png": b"no image"}), mpirun=True),
    Row("folder without faces", given("faces"), "?", files({"readme": b"x"})),
    Row("folder without IDX files", given("idx"), "?", files({"readme": b"x"})),
    Row("IDX file that is none", given("idx"), "?", files({"train-images-idx3-ubyte": b"x" * 99, "train-labels-idx1-ubyte": b""})),
    Row("folder without volumes", given("nifti"), "?", files(IMAGES)),
    Row("volume that is none", given("nifti"), "?", files({"a/0.nii": b"x" * 999, "b/0.nii": b"x" * 999})),
    Row("window upside down", given("nifti", "--window", "400", "-1000"), "?", files(IMAGES)),
    Row("folder without arrays", given("npy"), "?", files({"readme": b"x"})),
    Row("array that is none", given("npy"), "?", files({**ARRAYS, "images.npy": b"no array"})),
    Row("archive for a folder", given("npy"), "?", text(zip_bytes(ARRAYS), "source")),
    Row("fewer labels than images in arrays", given("npz"), "?", text(zip_bytes({**ARRAYS, "labels.npy": npy([0, 1])}), "source")),
    Row("labels that are no classes", given("npy"), "?", files({**ARRAYS, "labels.npy": npy([0, 1, 0, 1, 10**9, 1, 0, 1])})),
    Row("constant images", given("npy"), "?", files({**ARRAYS, "images.npy": npy(np.zeros((8, 5, 5), "u1"))})),
    Row("more channels than a picture shows", given("npy", "--layout", "NCHW"), "?", files(ARRAYS)),
    Row("grid finer than the images", given("npy", "--grid", "9,9"), "?", files(ARRAYS)),
    Row("share of everything", given("npy", "--test-fraction", "1.5"), "?", files(ARRAYS)),
    Row("file to make has too long a name", ("prepare", "npy", "source", "d" * 300), "?", files(ARRAYS)),
    Row("file to make is the folder above", ("prepare", "npy", "source", ".."), "?", files(ARRAYS)),
    Row("source has too long a name", ("prepare", "npy", "s" * 300, "d.h5"), "?"),
    Row("folder that would be made", ("prepare", "npy", "source", "new/er/d.h5", "--grid", "9"), "?", files(ARRAYS)),
    Row("file to make is a folder", given("npy"), "?", lambda: (folder("d.h5")(), files(ARRAYS)())),
    Row("file to make can't be made", ("prepare", "npy", "source", "/proc/x/d.h5"), "?", files(ARRAYS)),
    Row("file to make is the source", ("prepare", "npz", "good.h5", "good.h5"), "?"),
    Row("pickle in an array: npy", given("npy"), "?", files({**ARRAYS, "labels.npy": npy([Evil()] * 8)})),
    Row("pickle in an array: npz", given("npz"), "?", text(zip_bytes({**ARRAYS, "labels.npy": npy([Evil()] * 8)}), "source"), mpirun=True),
    Row("pickle that runs code", given("cifar10"), "?", files(CIFAR_FILES)),
    Row("pickle that runs code, in an archive", given("cifar10"), "?", text(tar_bytes(CIFAR_FILES), "source")),
    Row("tar member that leads outside", given("folder"), "?", text(tar_bytes({"ran.png": PNG, "../ran": PNG}), "source")),
    Row("tar member of an absolute path", given("folder"), "?", text(tar_bytes({**IMAGES, "/tmp/ran.png": PNG}), "source")),
    Row("zip member that leads outside", given("folder"), "?", text(zip_bytes({**IMAGES, "a/../../ran": PNG}), "source")),
    Row("symbolic links in a tar", given("folder"), "?", text(tar_link(tarfile.SYMTYPE, "../good.h5"), "source")),
    Row("hard links in a tar", given("folder"), "?", text(tar_link(tarfile.LNKTYPE, "/etc/passwd"), "source")),
]
