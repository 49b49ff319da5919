"""Wrong dataset files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from .row import Make, Row, folder, text, void

TRAIN = ("train", "--data.file", "d.h5", "--model.name", "vgg1")


def changed(change: Callable[[h5py.File], object]) -> Make:
    """A good dataset file, changed."""

    def make() -> None:
        shutil.copy("good.h5", "d.h5")
        with h5py.File("d.h5", "r+") as file:
            change(file)

    return make


def put(name: str, value: object) -> Make:
    """A dataset replaced."""
    return changed(lambda file: (file.__delitem__(name), file.__setitem__(name, value)))


def attribute(name: str, value: object) -> Make:
    """An attribute replaced."""
    return changed(lambda file: file.attrs.__setitem__(name, value))


def without(name: str) -> Make:
    """A group or dataset left out."""
    return changed(lambda file: file.__delitem__(name))


def label(split: str, row: int, value: int) -> Make:
    """One label replaced."""
    return changed(lambda file: file[f"{split}/labels"].__setitem__(row, value))


def truncated() -> None:
    """The first half of a good file."""
    content = Path("good.h5").read_bytes()
    Path("d.h5").write_bytes(content[: len(content) // 2])


def elsewhere() -> str:
    """A file outside of the dataset file, with what its images would need."""
    Path("outside.raw").write_bytes(bytes(24 * 2 * 8 * 6))
    return "outside.raw"


def external(file: h5py.File) -> None:
    """Pixels in a raw file elsewhere."""
    del file["train/images"]
    storage = [(elsewhere(), 0, h5py.h5f.UNLIMITED)]
    file["train"].create_dataset("images", (24, 2, 8, 6), "u1", external=storage)


def virtual(file: h5py.File) -> None:
    """Pixels in another HDF5 file."""
    layout = h5py.VirtualLayout((24, 2, 8, 6), "u1")
    layout[:] = h5py.VirtualSource("good.h5", "train/images", (24, 2, 8, 6))
    del file["train/images"]
    file["train"].create_virtual_dataset("images", layout)


def pixel(value: float) -> Callable[[h5py.File], None]:
    """Images of float32 with one pixel replaced."""

    def change(file: h5py.File) -> None:
        for split in ("train", "test"):
            images = file[f"{split}/images"][:].astype(np.float32)
            images[3, 1, 2, 2] = value
            del file[f"{split}/images"]
            file[f"{split}/images"] = images

    return change


def several(file: h5py.File) -> None:
    """Three faults."""
    file["test/labels"][0] = 9
    file.attrs["mean"] = [0.0]
    del file["train/labels"]


DATASETS = [
    Row("dataset missing", TRAIN, "?", mpirun=True),
    Row("dataset is a folder", TRAIN, "?", folder("d.h5")),
    Row("dataset has too long a name", ("train", "--data.file", "d" * 300), "?"),
    Row("dataset is empty", TRAIN, "?", text("", "d.h5")),
    Row("dataset is no HDF5", TRAIN, "?", text("images, labels\n" * 100, "d.h5")),
    Row("dataset is a device", ("train", "--data.file", "/dev/null"), "?"),
    Row("dataset is truncated", TRAIN, "?", truncated, mpirun=True),
    Row("HDF5 of something else", TRAIN, "?", lambda: void(h5py.File("d.h5", "w").close())),
    Row("newer format", TRAIN, "?", attribute("hpcdd_format", 2)),
    Row("no training split", TRAIN, "?", without("train")),
    Row("no test labels", TRAIN, "?", without("test/labels")),
    Row("pixels of float64", TRAIN, "?", put("train/images", np.zeros((24, 2, 8, 6)))),
    Row("images without channels", TRAIN, "?", put("train/images", np.zeros((24, 8, 6), "u1"))),
    Row("images of no pixels", TRAIN, "?", put("train/images", np.zeros((24, 2, 0, 6), "u1"))),
    Row("other images for the test", TRAIN, "?", put("test/images", np.zeros((12, 2, 6, 8), "u1"))),
    Row("labels are fractions", TRAIN, "?", put("train/labels", np.zeros(24))),
    Row("labels are one-hot", TRAIN, "?", put("train/labels", np.eye(24, 3, dtype=int))),
    Row("labels are texts", TRAIN, "?", put("train/labels", ["ant"] * 24)),
    Row("fewer labels than images", TRAIN, "?", put("train/labels", np.arange(23) % 3)),
    Row("label out of range", TRAIN, "?", label("train", 5, 3), mpirun=True),
    Row("negative label", TRAIN, "?", label("test", 2, -1)),
    Row("one class only", TRAIN, "?", put("train/labels", np.full(24, 2))),
    Row("class names in one text", TRAIN, "?", attribute("class_names", "ant,bee,cat")),
    Row("class names that are no text", TRAIN, "?", attribute("class_names", np.array([b"\xff\xfe", b"b", b"c"]))),
    Row("mean of one channel", TRAIN, "?", attribute("mean", [50.0])),
    Row("std is NaN", TRAIN, "?", attribute("std", [28.0, np.nan])),
    Row("std is zero", TRAIN, "?", attribute("std", [28.0, 0.0])),
    Row("soft link", TRAIN, "?", put("train/images", h5py.SoftLink("/test/images"))),
    Row("link to a file outside", TRAIN, "?", put("test", h5py.ExternalLink("good.h5", "/test")), mpirun=True),
    Row("virtual images of a file outside", TRAIN, "?", changed(virtual)),
    Row("pixels in a raw file outside", TRAIN, "?", changed(external)),
    Row("pixel is NaN", TRAIN, "?", changed(pixel(np.nan)), mpirun=True),
    Row("several faults at once", TRAIN, "?", changed(several)),
]
