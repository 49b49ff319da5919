"""Dataset files, good and bad: a bad one is refused with a message that names the fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcdd.core.errors import UserError
from hpcdd.data.format import EMBEDDED, inspect, resolve


def write_good(
    path: Path, *, shape: tuple[int, ...] = (2, 6, 7), dtype: str = "uint8", validation: bool = False
) -> None:
    """A dataset file with 12 training and 6 test samples in three classes, by h5py alone."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, n in (("train", 12), ("test", 6), *([("validation", 3)] if validation else [])):
            file[f"{split}/images"] = generator.integers(0, 100, (n, *shape)).astype(dtype)
            file[f"{split}/labels"] = np.arange(n) % 3
        file.attrs["hpcdd_format"] = 1
        file.attrs["name"] = "good"
        file.attrs["class_names"] = ["ant", "bee", "cat"]
        file.attrs["mean"], file.attrs["std"] = [50.0] * shape[0], [28.0] * shape[0]
        file.attrs["source"], file.attrs["licence"] = "here", "CC0"


def put(name: str, value: object) -> Callable[[h5py.File], None]:
    """Replaces a dataset, with its attributes lost."""

    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = value

    return change


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def without(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(name)


def without_attribute(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__delitem__(name)


def label(split: str, row: int, value: int) -> Callable[[h5py.File], None]:
    return lambda file: file[f"{split}/labels"].__setitem__(row, value)


def test_names_are_shown_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    """And the fingerprint is that of the names as they are stored, as it was before."""
    prints = []
    for name in ("cat\x1b", r"cat\x1b"):
        path = tmp_path / "d.h5"
        write_good(path)
        with h5py.File(path, "r+") as file:
            file.attrs["class_names"] = ["ant", "bee", name]
            file.attrs["name"] = "\x07"
        info = inspect(path)
        assert (info.name, info.class_names) == (r"\x07", ("ant", "bee", r"cat\x1b"))
        prints.append(info.fingerprint)
    assert prints[0] != prints[1]


BAD_CONTENT = {
    "label too large for int64": (put("test/labels", np.array([0, 1, 2, 0, 1, 2**64 - 1], "u8")), r"test/labels\[5\]"),
    "more labels": (put("test/labels", np.arange(7) % 3), "test/images holds 6 samples, but test/labels holds 7"),
    "no test": (without("test"), "there is no group 'test'"),
    "no images": (without("test/images"), "there is no dataset 'test/images'"),
    "no labels": (without("train/labels"), "there is no dataset 'train/labels'"),
    "split is a dataset": (put("train", np.zeros(3)), "there is no group 'train'"),
    "images in 4D": (put("train/images", np.zeros((12, 1, 2, 2, 2, 2), "u1")), "train/images has shape"),
    "int32": (put("train/images", np.zeros((12, 2, 6, 7), "i4")), "train/images is int32; one of uint8"),
    "big-endian": (put("train/images", np.zeros((12, 2, 6, 7), ">i2")), "train/images is >i2; one of uint8"),
    "shapes differ": (put("test/images", np.zeros((6, 2, 7, 6), "u1")), "images differ between splits"),
    "dtypes differ": (put("test/images", np.zeros((6, 2, 6, 7), "i1")), "images differ between splits"),
    "mean is text": (attribute("mean", "fifty"), "attribute mean must hold 2"),
    "mean is NaN": (attribute("mean", [50.0, np.nan]), "attribute mean must hold 2 finite"),
    "std too long": (attribute("std", [1.0, 1.0, 1.0]), "attribute std must hold 2 finite numbers"),
    "no std": (without_attribute("std"), "attribute std must hold 2"),
    "std negative": (attribute("std", [-1.0, 1.0]), "attribute std is .*positive"),
    "no class names": (without_attribute("class_names"), "attribute class_names must list at least two names"),
    "one class name": (attribute("class_names", ["ant"]), "attribute class_names must list at least two names"),
}


@pytest.mark.parametrize(("change", "message"), BAD_CONTENT.values(), ids=BAD_CONTENT.keys())
def test_bad_content_is_named(tmp_path: Path, change: Callable[[h5py.File], None], message: str) -> None:
    path = tmp_path / "bad.h5"
    write_good(path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UserError, match=message) as caught:
        inspect(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("samples", [0, 1])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_too_few_samples(tmp_path: Path, split: str, samples: int) -> None:
    path = tmp_path / "few.h5"
    write_good(path)
    with h5py.File(path, "r+") as file:
        put(f"{split}/images", np.zeros((samples, 2, 6, 7), "u1"))(file)
        put(f"{split}/labels", np.zeros(samples, int))(file)
    with pytest.raises(UserError, match=rf"split '{split}' has too few samples \({samples}\)"):
        inspect(path)


@pytest.mark.parametrize("kept", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_truncated_anywhere(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.h5"
    write_good(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=re.escape(str(path))):
        inspect(path)


def test_several_faults_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.h5"
    write_good(path, validation=True)
    with h5py.File(path, "r+") as file:
        put("train/labels", np.zeros(12))(file)
        label("test", 0, 9)(file)
        attribute("mean", [0.0])(file)
    with pytest.raises(UserError) as caught:
        inspect(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    for line, fault in zip(lines, ("train/labels is float64", "test/labels[0] is 9", "attribute mean"), strict=True):
        assert fault in line
        assert str(path) in line


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", [(3, 6, 7), (1, 4, 5, 6)], ids=["2D", "3D"])
def test_a_good_file_is_read(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    path = tmp_path / "good.h5"
    write_good(path, shape=shape, dtype=dtype, validation=True)
    info = inspect(path)
    assert (info.name, info.source, info.licence, info.path) == ("good", "here", "CC0", path)
    assert (info.image_shape, info.dtype) == (shape, dtype)
    assert (info.class_names, info.num_classes) == (("ant", "bee", "cat"), 3)
    assert info.samples == {"train": 12, "validation": 3, "test": 6}
    assert info.labels["test"].tolist() == [0, 1, 2, 0, 1, 2]
    assert info.labels["test"].dtype == np.int64
    assert (info.mean, info.std) == ((50.0,) * shape[0], (28.0,) * shape[0])


def test_the_number_of_the_format_may_be_text(tmp_path: Path) -> None:
    write_good(tmp_path / "d.h5")
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        attribute("hpcdd_format", "1")(file)
    assert inspect(tmp_path / "d.h5").num_classes == 3


def test_resolve() -> None:
    assert resolve("embedded") == EMBEDDED
    assert resolve("some/file.h5") == Path("some/file.h5")


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.__delitem__("train/images") or file.create_group("train/images"),
        lambda file: file.__delitem__("train/images") or file.__setitem__("train/images", h5py.SoftLink("/nowhere")),
        lambda file: file.__delitem__("test") or file.__setitem__("test", h5py.ExternalLink("other.h5", "/test")),
        lambda file: file.__delitem__("train/labels") or file.create_dataset("train/labels", data=h5py.Empty("i8")),
        lambda file: file.__delitem__("train/images") or file.create_dataset("train/images", data=np.uint8(3)),
        lambda file: file.attrs.__setitem__("hpcdd_format", [1, 1]),
        lambda file: file.attrs.__setitem__("class_names", np.array([b"\xff\xfe", b"b", b"c"])),
    ],
    ids=["group", "dangling", "external link", "empty", "scalar", "two versions", "not UTF-8"],
)
def test_damaged_structure_is_the_users_error(tmp_path: Path, damage: Callable[[h5py.File], None]) -> None:
    path = tmp_path / "damaged.h5"
    write_good(path)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(UserError, match=r"damaged\.h5"):
        inspect(path)
