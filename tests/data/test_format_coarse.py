"""Dataset files with coarse images, good and bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from hpcdd.core.errors import UserError
from hpcdd.data.format import inspect

from .test_format import put, write_good


def coarse(
    *splits: str, block: object = (2, 3), shape: tuple[int, ...] = (2, 3, 3), dtype: str = "uint8"
) -> Callable[[h5py.File], None]:
    """Adds coarse images of the given shape (C, *coarse), default: correct ones."""

    def change(file: h5py.File) -> None:
        for split in splits or [split for split in ("train", "validation", "test") if split in file]:
            made = file[split].create_dataset("coarse", (len(file[split]["labels"]), *shape), dtype)
            made[...] = 0  # else nothing is stored
            if block is not None:
                made.attrs["block"] = block

    return change


def external_coarse(file: h5py.File) -> None:
    raw = Path(file.filename).with_name("coarse.raw")
    raw.write_bytes(bytes(12 * 2 * 3 * 3))
    made = file["train"].create_dataset("coarse", (12, 2, 3, 3), "u1", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
    made.attrs["block"] = (2, 3)


def empty_coarse(file: h5py.File) -> None:
    coarse()(file)
    put("train/coarse", h5py.Empty("u1"))(file)
    block_of("train")(file)


def block_of(split: str) -> Callable[[h5py.File], None]:
    return lambda file: file[f"{split}/coarse"].attrs.__setitem__("block", (2, 3))


BAD = {
    "coarse without a block": (coarse(block=None), "attribute block of train/coarse must hold an integer for each"),
    "block of floats": (coarse(block=(2.0, 3.0)), "attribute block of train/coarse must hold an integer for each"),
    "block is one number": (coarse(block=2), "attribute block of test/coarse must hold an integer for each"),
    "block is text": (coarse(block="2,3"), "attribute block of train/coarse must hold an integer for each"),
    "block is empty": (coarse(block=h5py.Empty("i8")), "attribute block of train/coarse must hold an integer for each"),
    "block of three": (coarse(block=(2, 3, 1)), r"train/coarse: block \[2, 3, 1\] has 3 axes, but the images have 2"),
    "block of zero": (coarse(block=(0, 3)), r"train/coarse: block \[0, 3\] must hold positive numbers"),
    "block too large": (coarse(block=(2, 8)), r"train/coarse: block \[2, 8\] is larger than the images, 6 x 7 pixels"),
    "block of ones": (coarse(block=(1, 1), shape=(2, 6, 7)), r"train/coarse: block \[1, 1\] averages nothing"),
    "coarse of another shape": (
        coarse(shape=(2, 3, 2)),
        r"train/coarse is uint8 of shape \(12, 2, 3, 2\); uint8 of shape \(12, 2, 3, 3\) is needed for train/images",
    ),
    "coarse of another dtype": (
        coarse(dtype="int8"),
        r"test/coarse is int8 of shape .*; uint8 of shape \(6, 2, 3, 3\)",
    ),
    "coarse of fewer images": (
        lambda file: (coarse()(file), put("test/coarse", file["test/coarse"][:-1])(file), block_of("test")(file)),
        r"test/coarse is uint8 of shape \(5, 2, 3, 3\)",
    ),
    "coarse in one split": (
        coarse("train"),
        r"differ between splits \(train \[2, 3\], test none\); use one block for all",
    ),
    "coarse in the other split": (coarse("test"), r"differ between splits \(train none, test \[2, 3\]\)"),
    "two blocks": (
        lambda file: (coarse("train")(file), coarse("test", block=(3, 3), shape=(2, 2, 3))(file)),
        r"blocks of coarse images differ between splits \(train \[2, 3\], test \[3, 3\]\)",
    ),
    "coarse is a group": (lambda file: file.create_group("train/coarse"), "there is no dataset 'train/coarse'"),
    "coarse is a link": (put("train/coarse", h5py.SoftLink("/train/images")), "train/coarse is a link"),
    "coarse is a dangling link": (put("test/coarse", h5py.ExternalLink("no.h5", "/x")), "test/coarse is a link"),
    "coarse is empty": (empty_coarse, "train/coarse is uint8 of shape None; uint8 of shape"),
    "coarse elsewhere": (external_coarse, "train/coarse points to other files"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_bad_coarse_images_are_named(tmp_path: Path, change: Callable[[h5py.File], None], message: str) -> None:
    path = tmp_path / "bad.h5"
    write_good(path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UserError, match=message) as caught:
        inspect(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("validation", [False, True])
def test_a_good_file_with_coarse_images(tmp_path: Path, validation: bool) -> None:
    path = tmp_path / "good.h5"
    write_good(path, validation=validation)
    assert (inspect(path).coarse, inspect(path).coarse_image_shape) == (None, None)
    with h5py.File(path, "r+") as file:
        coarse()(file)
    assert (inspect(path).coarse, inspect(path).coarse_image_shape) == ((2, 3), (2, 3, 3))


def test_a_fault_of_coarse_images_makes_no_other(tmp_path: Path) -> None:
    path = tmp_path / "bad.h5"
    write_good(path, validation=True)
    with h5py.File(path, "r+") as file:
        coarse("train", "validation")(file)
        coarse("test", block=(9, 9))(file)
    with pytest.raises(UserError) as caught:
        inspect(path)
    assert str(caught.value).splitlines() == [
        f"data.file: {path}: test/coarse: block [9, 9] is larger than the images, 6 x 7 pixels; use a smaller one"
    ]
