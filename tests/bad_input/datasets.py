"""Wrong dataset files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from .row import LONG, Make, Row, folder, text, void

TRAIN = ("train", "--data.file", "d.h5", "--model.name", "vgg1", "--decomposition.overlap", "0")


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


def unwritten(name: str, shape: tuple[int, ...]) -> Make:
    """A dataset of that shape, of which nothing was ever written."""

    def change(file: h5py.File) -> None:
        dtype = file[name].dtype
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=(24, 1, 1 << 10, 1 << 10) if len(shape) > 1 else None)

    return changed(change)


def packed_by_blosc(file: h5py.File) -> None:
    """As the plugin of blosc writes it."""
    del file["train/images"]
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((24, 2, 8, 6))
    settings.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((24, 2, 8, 6))
    made = h5py.h5d.create(file["train"].id, b"images", h5py.h5t.NATIVE_UINT8, space, settings)
    made.write_direct_chunk((0, 0, 0, 0), b"packed")


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
    Row("dataset missing", TRAIN, "data.file: d.h5 is not there; name a dataset file"),
    Row("dataset is a folder", TRAIN, "data.file: d.h5 is a folder; name a dataset file", folder("d.h5")),
    Row(
        "dataset has too long a name",
        ("train", "--data.file", LONG),
        f"data.file: {LONG} can't be a file: File name too long",
    ),
    Row(
        "dataset is empty",
        TRAIN,
        "data.file: d.h5 is empty (0 bytes); make it again with `hpcdd prepare`",
        text("", "d.h5"),
    ),
    Row(
        "dataset is no HDF5",
        TRAIN,
        "data.file: d.h5 is not an HDF5 file; make a dataset file with `hpcdd prepare` (`hpcdd "
        "prepare --help` lists the formats that it reads)",
        text("images, labels\n" * 100, "d.h5"),
    ),
    Row(
        "dataset is a device",
        ("train", "--data.file", "/dev/null"),
        "data.file: /dev/null is not a file, but a device or a pipe; name a dataset file",
    ),
    Row(
        "dataset is truncated",
        TRAIN,
        "data.file: d.h5 is truncated: it has 7,296 of 14,592 bytes; copy or make it again",
        truncated,
    ),
    Row(
        "HDF5 of something else",
        TRAIN,
        "data.file: d.h5 is HDF5, but not a dataset file of hpcdd (no attribute hpcdd_format)",
        lambda: void(h5py.File("d.h5", "w").close()),
    ),
    Row(
        "newer format",
        TRAIN,
        "data.file: d.h5 has hpcdd_format 2; this version of hpcdd reads format 1",
        attribute("hpcdd_format", 2),
    ),
    Row(
        "labels that were never written",
        TRAIN,
        "data.file: d.h5: train/labels stores 0 bytes, too few for its 137,438,953,472 bytes",
        unwritten("train/labels", (1 << 34,)),
    ),
    Row(
        "pixels that were never written",
        TRAIN,
        "data.file: d.h5: train/images stores only 0 of the 2,097,152 chunks of its 52,776,558,133,248 bytes",
        unwritten("train/images", (24, 2, 1 << 20, 1 << 20)),
    ),
    Row(
        "pixels packed by a filter that is not here",
        TRAIN,
        "data.file: d.h5: train/images is packed by the filter 32001 (without a name), which is not installed here; on "
        "a machine that has it, rewrite the file by `h5repack -f GZIP=4 IN OUT`, or set HDF5_PLUGIN_PATH to the "
        "filter's folder",
        changed(packed_by_blosc),
    ),
    Row("no training split", TRAIN, "data.file: d.h5: there is no group 'train'", without("train")),
    Row("no test labels", TRAIN, "data.file: d.h5: there is no dataset 'test/labels'", without("test/labels")),
    Row(
        "pixels of float64",
        TRAIN,
        "data.file: d.h5: train/images is float64; one of uint8, int8, uint16, int16, float32 is needed",
        put("train/images", np.zeros((24, 2, 8, 6))),
    ),
    Row(
        "images without channels",
        TRAIN,
        "data.file: d.h5: train/images has shape (24, 8, 6); (n, C, H, W) or (n, C, D, H, W) is needed",
        put("train/images", np.zeros((24, 8, 6), "u1")),
    ),
    Row(
        "images of no pixels",
        TRAIN,
        "data.file: d.h5: train/images has shape (24, 2, 0, 6); (n, C, H, W) or (n, C, D, H, W) is needed",
        put("train/images", np.zeros((24, 2, 0, 6), "u1")),
    ),
    Row(
        "other images for the test",
        TRAIN,
        "data.file: d.h5: images differ between splits: shapes {'train': (2, 8, 6), 'test': (2, 6, "
        "8)}, dtypes {'train': 'uint8', 'test': 'uint8'}",
        put("test/images", np.zeros((12, 2, 6, 8), "u1")),
    ),
    Row(
        "labels are fractions",
        TRAIN,
        "data.file: d.h5: train/labels is float64 of shape (24,); int64 of shape (n,) is needed",
        put("train/labels", np.zeros(24)),
    ),
    Row(
        "labels are one-hot",
        TRAIN,
        "data.file: d.h5: train/labels is int64 of shape (24, 3); int64 of shape (n,) is needed",
        put("train/labels", np.eye(24, 3, dtype=int)),
    ),
    Row(
        "labels are texts",
        TRAIN,
        "data.file: d.h5: train/labels is object of shape (24,); int64 of shape (n,) is needed",
        put("train/labels", ["ant"] * 24),
    ),
    Row(
        "fewer labels than images",
        TRAIN,
        "data.file: d.h5: train/images holds 24 samples, but train/labels holds 23",
        put("train/labels", np.arange(23) % 3),
    ),
    Row(
        "label out of range",
        TRAIN,
        "data.file: d.h5: train/labels[5] is 3, out of range for 3 classes (0 to 2); 1 such labels",
        label("train", 5, 3),
        mpirun=True,
    ),
    Row(
        "negative label",
        TRAIN,
        "data.file: d.h5: test/labels[2] is -1, out of range for 3 classes (0 to 2); 1 such labels",
        label("test", 2, -1),
    ),
    Row(
        "one class only",
        TRAIN,
        "2 of 3 classes have no training samples in FOLDER/d.h5: ant, bee; no model can learn them, so make the file "
        "again with samples of them",
        put("train/labels", np.full(24, 2)),
    ),
    Row(
        "class names in one text",
        TRAIN,
        "data.file: d.h5: attribute class_names must list at least two names",
        attribute("class_names", "ant,bee,cat"),
    ),
    Row(
        "class names that are no text",
        TRAIN,
        "data.file: d.h5: attribute class_names holds bytes that are not valid UTF-8",
        attribute("class_names", np.array([b"\xff\xfe", b"b", b"c"])),
    ),
    Row(
        "mean of one channel",
        TRAIN,
        "data.file: d.h5: attribute mean must hold 2 finite numbers, one per channel",
        attribute("mean", [50.0]),
    ),
    Row(
        "std is NaN",
        TRAIN,
        "data.file: d.h5: attribute std must hold 2 finite numbers, one per channel",
        attribute("std", [28.0, np.nan]),
    ),
    Row(
        "std is zero",
        TRAIN,
        "data.file: d.h5: attribute std is [28.0, 0.0]; it must be positive for every channel (1 for a constant "
        "channel)",
        attribute("std", [28.0, 0.0]),
    ),
    Row(
        "soft link",
        TRAIN,
        "data.file: d.h5: train/images is a link; a dataset file must contain all of its data",
        put("train/images", h5py.SoftLink("/test/images")),
    ),
    Row(
        "link to a file outside",
        TRAIN,
        "data.file: d.h5: test is a link; a dataset file must contain all of its data",
        put("test", h5py.ExternalLink("good.h5", "/test")),
    ),
    Row(
        "virtual images of a file outside",
        TRAIN,
        "data.file: d.h5: train/images points to other files; a dataset file must contain all of its data",
        changed(virtual),
    ),
    Row(
        "pixels in a raw file outside",
        TRAIN,
        "data.file: d.h5: train/images points to other files; a dataset file must contain all of its data",
        changed(external),
    ),
    Row(
        "pixel is NaN",
        TRAIN,
        "data.file: FOLDER/d.h5: train/images[3] has a NaN or infinite pixel (1 such images in box [0, 0] to [4, 3]); "
        "repair or remove them (rank 0)",
        changed(pixel(np.nan)),
        mpirun=True,
    ),
    Row(
        "several faults at once",
        TRAIN,
        "data.file: d.h5: there is no dataset 'train/labels'\n"
        "data.file: d.h5: test/labels[0] is 9, out of range for 3 classes (0 to 2); 1 such labels",
        changed(several),
    ),
]
