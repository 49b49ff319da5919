"""Wrong data sets for ``hpcdd prepare``."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ..data.prepare.importers.sources import tar_bytes, write_files, zip_bytes
from .row import LONG, Make, Row, folder, text

CIFAR = [f"data_batch_{number}" for number in range(1, 6)]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)


def preparing(kind: str, *options: str, source: str = "source") -> tuple[str, ...]:
    """A command that makes d.h5."""
    return ("prepare", kind, source, "d.h5", *options)


def files(content: dict[str, bytes]) -> Make:
    """The folder ``source`` with these files."""
    return lambda: write_files(Path("source"), content) and None


def npy(array: object) -> bytes:
    """An array in NumPy's format, of objects by a pickle."""
    made = io.BytesIO()
    np.save(made, np.asarray(array), allow_pickle=True)
    return made.getvalue()


IMAGES = {f"{label}/{i}.png": PNG for label in "ab" for i in range(4)}
ARRAYS = {"images.npy": npy(np.arange(200, dtype=np.uint8).reshape(8, 5, 5)), "labels.npy": npy(np.arange(8) % 2)}

SOURCES = [
    Row(
        "source missing: cifar10",
        preparing("cifar10"),
        "source is not there; name the folder or archive of the data set",
    ),
    Row(
        "source missing: cifar100",
        preparing("cifar100"),
        "source is not there; name the folder or archive of the data set",
    ),
    Row("source missing: faces", preparing("faces"), "source is not there; name the folder or archive of the data set"),
    Row(
        "source missing: folder",
        preparing("folder"),
        "source is not there; name the folder or archive of the data set",
        mpirun=True,
    ),
    Row(
        "source missing: idx",
        preparing("idx"),
        "source is not a folder; name the one that holds train-images-idx3-ubyte and its three siblings",
    ),
    Row("source missing: nifti", preparing("nifti"), "source is not there; name the folder or archive of the data set"),
    Row(
        "source missing: npy",
        preparing("npy"),
        "source is not a folder; name one with files such as train_images.npy and train_labels.npy",
    ),
    Row("source missing: npz", preparing("npz"), "source is not there; name an .npz file"),
    Row(
        "too few phantoms",
        ("prepare", "phantom", "d.h5", "--samples", "3"),
        "--samples is 3; use 8 or more, so each split has volumes of both classes",
    ),
    Row(
        "archive of something else: cifar10",
        preparing("cifar10"),
        "source is not CIFAR-10: it contains the files of no release, such as data_batch_1.bin or data_batch_1",
        text(tar_bytes({"a/readme": b"x"}), "source"),
    ),
    Row(
        "archive of something else: cifar100",
        preparing("cifar100"),
        "source is not CIFAR-100 (fine labels): it contains the files of no release, such as train.bin or train",
        text(zip_bytes({"readme": b"x"}), "source"),
    ),
    Row(
        "a release without all its files",
        preparing("cifar10"),
        "source lacks test_batch.bin, batches.meta.txt of CIFAR-10; download it again",
        files({f"{n}.bin": b"" for n in CIFAR}),
    ),
    Row(
        "no archive at all",
        preparing("folder"),
        "source is neither a folder nor a tar or zip archive",
        text("some text", "source"),
    ),
    Row(
        "truncated archive",
        preparing("folder"),
        "source is damaged or not a tar archive: Compressed file ended before the end-of-stream marker was "
        "reached; download it again",
        text(tar_bytes(IMAGES)[:80], "source"),
    ),
    Row(
        "folder without images",
        preparing("folder"),
        "source holds no images (.apng, .avif, .avifs, .bmp, .gif, .j2c, .j2k, .jfif, .jp2, .jpc, .jpe, "
        ".jpeg, .jpf, .jpg, .jpx, .pbm, .pfm, .pgm, .png, .pnm, .ppm, .tif, .tiff, .webp); not used: 1 .txt "
        "in a (no suffix of images)",
        files({"a/readme.txt": b"x"}),
    ),
    Row(
        "images of one class",
        preparing("folder"),
        "source holds images of 1 classes (a); it must hold one folder per class for at least two classes, or folders "
        "train and test with such folders",
        files({"a/0.png": PNG, "a/1.png": PNG}),
    ),
    Row(
        "file that is no image",
        preparing("folder"),
        "source/a/2.png can't be read as an image: it is damaged, or in none of the formats AVIF, BMP, GIF, JPEG, "
        "JPEG2000, PNG, PPM, TIFF, WEBP; repair or remove it, or skip bad files with --skip-bad",
        files({**IMAGES, "a/2.png": b"no image"}),
    ),
    Row(
        "folder without faces",
        preparing("faces"),
        "source holds faces of 0 subjects; it must contain folders yaleB01, yaleB02, ... with files such as "
        "yaleB01_P00A+000E+00.pgm",
        files({"readme": b"x"}),
    ),
    Row(
        "folder without IDX files",
        preparing("idx"),
        "source holds neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz nor "
        "train-images.idx3-ubyte nor train-images.idx3-ubyte.gz",
        files({"readme": b"x"}),
    ),
    Row(
        "file that is no IDX file",
        preparing("idx"),
        "source/train-images-idx3-ubyte is not an IDX file: it starts with 78 78 78 78, not with 00 00",
        files({"train-images-idx3-ubyte": b"x" * 99, "train-labels-idx1-ubyte": b""}),
    ),
    Row(
        "folder without volumes",
        preparing("nifti"),
        "source holds no volumes (.nii, .nii.gz); not used: 8 .png in a, b (no suffix of volumes)",
        files(IMAGES),
    ),
    Row(
        "file that is no volume",
        preparing("nifti"),
        "source/a/0.nii can't be read as a NIfTI volume: data code 30840 not recognized; repair or remove it, or skip "
        "bad files with --skip-bad",
        files({"a/0.nii": b"x" * 999, "b/0.nii": b"x" * 999}),
    ),
    Row(
        "window upside down",
        preparing("nifti", "--window", "400", "-1000"),
        "--window is 400 -1000; use two numbers, the lower one first",
        files(IMAGES),
    ),
    Row(
        "folder without arrays",
        preparing("npy"),
        "source holds neither {split}_images and {split}_labels nor x_{split} and y_{split} nor "
        "X_{split} and y_{split} nor images and labels nor x and y nor X and y; its arrays are "
        "none: use --images NAME --labels NAME",
        files({"readme": b"x"}),
    ),
    Row(
        "file that is no array",
        preparing("npy"),
        "source/images.npy is not an array in NumPy's format: the magic string is not correct; "
        "expected b'\\x93NUMPY', got b'no arr'",
        files({**ARRAYS, "images.npy": b"no array"}),
    ),
    Row(
        "archive for a folder",
        preparing("npy"),
        "source is not a folder; name one with files such as train_images.npy and train_labels.npy",
        text(zip_bytes(ARRAYS), "source"),
    ),
    Row(
        "fewer labels than images in arrays",
        preparing("npz"),
        "source: images.npy holds 8 images, but source: labels.npy holds 2 labels",
        text(zip_bytes({**ARRAYS, "labels.npy": npy([0, 1])}), "source"),
    ),
    Row(
        "labels that are no classes",
        preparing("npy"),
        "source: its labels go from 0 to 1000000000, but only 3 of these numbers occur (0, 1, 1000000000); if each of "
        "these is a class, name them with --class-names",
        files({**ARRAYS, "labels.npy": npy([0, 1, 0, 1, 10**9, 1, 0, 1])}),
    ),
    Row(
        "constant images",
        preparing("npy"),
        "d.h5 was not written: all pixels of the training images are equal ([0.0] by channel); nothing can be learned "
        "from them",
        files({**ARRAYS, "images.npy": npy(np.zeros((8, 5, 5), "u1"))}),
    ),
    Row(
        "more channels than a picture shows",
        preparing("npy", "--layout", "NCHW"),
        "--layout is NCHW, but source/images.npy has the shape (8, 5, 5)",
        files(ARRAYS),
    ),
    Row(
        "grid finer than the images",
        preparing("npy", "--grid", "9,9"),
        "--grid is [9, 9], but the image is 5 pixels long along axis 0; use 1 to 5 along axis 0; "
        "--grid is [9, 9], but the image is 5 pixels long along axis 1; use 1 to 5 along axis 1",
        files(ARRAYS),
    ),
    Row(
        "fraction above 1",
        preparing("npy", "--test-fraction", "1.5"),
        "--test-fraction is 1.5; use a number between 0 and 1",
        files(ARRAYS),
    ),
    Row(
        "file to make has too long a name",
        ("prepare", "npy", "source", LONG),
        f"{LONG} has a name of 300 bytes; use at most 200",
        files(ARRAYS),
    ),
    Row(
        "file to make is the folder above",
        ("prepare", "npy", "source", ".."),
        ".. is a folder; name the file to write",
        files(ARRAYS),
    ),
    Row(
        "source has too long a name",
        ("prepare", "npy", LONG, "d.h5"),
        f"{LONG} can't be a file or folder: File name too long",
    ),
    Row(
        "folder that would be made",
        ("prepare", "npy", "source", "new/er/d.h5", "--grid", "9"),
        "--grid is [9, 9], but the image is 5 pixels long along axis 0; use 1 to 5 along axis 0; "
        "--grid is [9, 9], but the image is 5 pixels long along axis 1; use 1 to 5 along axis 1",
        files(ARRAYS),
    ),
    Row(
        "file to make is a folder",
        preparing("npy"),
        "d.h5 is a folder; name the file to write",
        lambda: (folder("d.h5")(), files(ARRAYS)()),
    ),
    Row(
        "file to make can't be made",
        ("prepare", "npy", "source", "/proc/x/d.h5"),
        "/proc/x/d.h5 can't be written: [Errno 2] No such file or directory: '/proc/x'",
        files(ARRAYS),
    ),
    Row(
        "file to make is the source",
        ("prepare", "npz", "good.h5", "good.h5"),
        "good.h5 is the source itself; write to another file",
    ),
]
