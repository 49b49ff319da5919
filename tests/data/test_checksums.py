"""Checksums and fingerprints: what they distinguish, and that reading checks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcdd.core.errors import UserError
from hpcdd.data.checksums import checksum, checksums_of
from hpcdd.data.format import inspect
from hpcdd.data.reading import BoxReader
from hpcdd.data.writing import Split, write_dataset
from hpcdd.decomposition.boxes import Box

Array = np.ndarray[Any, Any]
LINE = 4096


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def written(path: Path, images: Array, **options: Any) -> Path:
    described = {"name": "d", "class_names": ["a", "b"], "compression": 0, **options}
    splits = {"train": Split.from_array(images, np.arange(len(images)) % len(described["class_names"]))}
    splits["test"] = splits["train"]
    write_dataset(path, splits, **described)
    return path


# -- the checksum ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, LINE - 1, LINE, LINE + 1, 2 * LINE + 9])
def test_every_single_bit_counts(size: int) -> None:
    data = noise(size)
    known = checksum(data)
    for index in range(size):
        for bit in (index % 8, 7):
            data[index] ^= 1 << bit
            assert checksum(data) != known
            data[index] ^= 1 << bit
    assert checksum(data) == known


@pytest.mark.parametrize("fill", [0, 255])
def test_zeroed_swapped_and_copied_lines_count(fill: int) -> None:
    data = noise(8 * LINE + 100)
    data[2 * LINE : 4 * LINE] = fill  # two equal lines, as in a white margin
    known = checksum(data)
    changes: list[tuple[int, int, Array | int]] = [
        (0, LINE, 0),
        (LINE, 2 * LINE, data[:LINE].copy()),
        (2 * LINE, 4 * LINE, 255 - fill),
        (0, 2 * LINE, np.roll(data[: 2 * LINE], LINE)),
        (0, len(data), 0),
        (0, 16, data[:16][::-1].copy()),
    ]
    for start, stop, value in changes:
        changed = data.copy()
        changed[start:stop] = value
        assert checksum(changed) != known


def test_the_same_flip_twice_counts() -> None:
    data = noise(6 * LINE)
    known = checksum(data)
    for bit in range(8):
        for distance in (1, 8, LINE, 2 * LINE, LINE + 8):
            changed = data.copy()
            changed[[7, 7 + distance]] ^= 1 << bit
            assert checksum(changed) != known


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_it_depends_on_the_bytes_alone(dtype: str) -> None:
    data = noise(3, 40, 70, dtype=dtype)
    for offset in range(1, 9):  # in memory
        moved = np.empty(data.nbytes + offset, np.uint8)[offset:]
        moved[:] = data.reshape(-1).view(np.uint8)
        assert checksum(moved) == checksum(data) == checksum(data.reshape(-1))


def test_it_stays_as_it_is_for_the_files_that_there_are() -> None:
    assert checksum(np.arange(10_000, dtype="<u4")) == 0x8CB239D8FC44CD15


def test_chunks_at_the_ends_are_smaller() -> None:
    pixels = noise(5, 1, 6, 7)
    sums = checksums_of(pixels, (2, 1, 4, 7))
    assert (sums.shape, sums.dtype) == ((3, 1, 2, 1), np.uint64)
    assert sums[2, 0, 1, 0] == checksum(pixels[4:, :, 4:].copy())


# -- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("chunk", [None, (5, 6)], ids=str)
def test_any_box_and_rows_of_any_chunks(
    tmp_path: Path, chunk: tuple[int, ...] | None, dtype: str, compression: int
) -> None:
    images = noise(700, 3, 9, 11, dtype=dtype)
    path = written(tmp_path / "d.h5", images, chunk=chunk, compression=compression, coarse=(2, 2))
    reader, some = BoxReader(path), np.array([0, 3, 4, 350, 699])
    for box in (Box((0, 0), (9, 11)), Box((0, 0), (5, 6)), Box((5, 6), (9, 11)), Box((1, 2), (8, 7))):
        expected = images[box.index]
        everything, few = reader.read_rows("train", box, [None, some])
        assert np.array_equal(everything, expected)
        assert np.array_equal(few, expected[some])
        assert np.array_equal(reader.read_rows("train", box, [some])[0], expected[some])
        padded = reader.read_rows("train", box, [None], padding=[(1, 2), (2, 1)])[0]
        assert np.array_equal(padded, np.pad(expected, ((0, 0), (0, 0), (1, 2), (2, 1)), mode="reflect"))


def spoil(path: Path, name: str, cell: tuple[int, ...], at: int = 5) -> None:
    """Flips a bit of a chunk."""
    with h5py.File(path) as file:
        images = file[name]
        info = images.id.get_chunk_info_by_coord(tuple(k * c for k, c in zip(cell, images.chunks, strict=True)))
    with path.open("rb+") as file:
        file.seek(info.byte_offset + at)
        byte = file.read(1)[0]
        file.seek(info.byte_offset + at)
        file.write(bytes([byte ^ 16]))


def test_a_flipped_bit_is_met_by_all_that_read_its_chunk_and_by_nobody_else(tmp_path: Path) -> None:
    path = written(tmp_path / "d.h5", noise(9000, 3, 10, 12), chunk=(5, 6))
    rows = (1 << 19) // (3 * 5 * 6)
    spoil(path, "train/images", (1, 0, 0, 1))
    reader = BoxReader(path)
    with pytest.raises(UserError, match=rf"d\.h5 can't be read: train/images\[{rows}\] to \[8999\] are damaged"):
        reader.read("train", Box((0, 0), (10, 12)))
    with pytest.raises(UserError, match="wrong checksum"):
        reader.read_rows("train", Box((0, 6), (5, 12)), [np.array([8999])])
    for box, part in (
        (Box((0, 0), (10, 6)), None),
        (Box((5, 0), (10, 12)), None),
        (Box((0, 6), (5, 12)), np.arange(9)),
    ):
        reader.read_rows("train", box, [part])
    inspect(path)


def test_a_flipped_bit_of_a_coarse_image_or_of_a_checksum(tmp_path: Path) -> None:
    whole = Box((0, 0), (10, 12))
    path = written(tmp_path / "d.h5", noise(40, 3, 10, 12), coarse=(2, 2))
    spoil(path, "test/coarse", (0, 0, 0, 0))
    with pytest.raises(UserError, match=r"test/coarse\[0\] to \[39\] are damaged"):
        BoxReader(path).read("test", whole, (2, 2))
    BoxReader(path).read("test", whole)
    with h5py.File(path, "r+") as file:
        file["train/images_checksums"][0] ^= np.uint64(1)
    with pytest.raises(UserError, match=r"d\.h5 is damaged: its header, labels or checksums have changed"):
        inspect(path)
    with pytest.raises(UserError, match=r"train/images\[0\] to \[39\] are damaged"):
        BoxReader(path).read("train", whole)


# -- the fingerprint ---------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    images = noise(40, 3, 10, 12)
    changed = images.copy()
    changed[39, 2, 9, 11] ^= 1
    known = inspect(written(tmp_path / "d.h5", images)).fingerprint
    assert len(known) == 64
    assert inspect(written(tmp_path / "elsewhere.h5", images, command="another", compression=9)).fingerprint == known
    others: list[dict[str, Any]] = [
        {"images": changed}, {"images": images[:38]}, {"images": images, "chunk": (5, 6)},
        {"images": images, "coarse": (2, 2)}, {"images": images, "name": "e"}, {"images": images, "licence": "MIT"},
        {"images": images, "class_names": ["b", "a"]}, {"images": images, "class_names": ["a", "b", "c"]},
    ]  # fmt: skip
    fingerprints = {inspect(written(tmp_path / "d.h5", **options)).fingerprint for options in others}
    assert len(fingerprints - {known}) == len(others)


def plain(path: Path, labels: Array, images: Array) -> str:
    """The fingerprint of a file that h5py alone has made, without checksums."""
    with h5py.File(path, "w") as file:
        for split in ("train", "test"):
            file[f"{split}/images"], file[f"{split}/labels"] = images, labels
        file.attrs.update({"hpcdd_format": 1, "class_names": ["a", "b"], "mean": [1.0], "std": [2.0], "name": "d"})
    return inspect(path).fingerprint


def test_a_file_without_checksums_has_one_by_labels_header_and_size(tmp_path: Path) -> None:
    labels, images = np.arange(30) % 2, noise(30, 1, 5, 5)
    known = plain(tmp_path / "d.h5", labels, images)
    assert plain(tmp_path / "e.h5", labels, images) == known
    assert plain(tmp_path / "e.h5", 1 - labels, images) != known
    assert plain(tmp_path / "e.h5", labels, noise(30, 1, 500, 5)) != known


def test_a_changed_label_is_found(tmp_path: Path) -> None:
    path = written(tmp_path / "d.h5", noise(40, 3, 10, 12))
    with h5py.File(path, "r+") as file:
        file["test/labels"][7] = 0
    with pytest.raises(UserError, match=r"d\.h5 is damaged: its header, labels or checksums"):
        inspect(path)
    with h5py.File(path, "r+") as file:
        del file["test/images_checksums"]
    with pytest.raises(UserError, match="there is no dataset 'test/images_checksums', but a fingerprint; remove both"):
        inspect(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["fingerprint"]
    assert inspect(path).labels["test"][7] == 0


@pytest.mark.parametrize(
    "value", [np.zeros((1, 1, 1), "u8"), np.zeros((1, 1, 1, 1), "u4"), np.zeros((2, 1, 1, 1), "u8")]
)
def test_checksums_that_do_not_fit_are_named(tmp_path: Path, value: Array) -> None:
    path = written(tmp_path / "d.h5", noise(40, 3, 10, 12))
    with h5py.File(path, "r+") as file:
        del file["train/images_checksums"], file.attrs["fingerprint"]
        file["train/images_checksums"] = value
    with pytest.raises(UserError, match=r"train/images_checksums is .*; uint64 of shape \(1, 1, 1, 1\), one for each"):
        inspect(path)


def test_many_long_class_names(tmp_path: Path) -> None:
    names = [f"{k} " + "ä" * 90 for k in range(1000)]
    path = written(tmp_path / "d.h5", noise(1000, 3, 2, 2), class_names=names, source="s" * 70_000)
    info = inspect(path)
    assert list(info.class_names) == names
    assert info.source == "s" * 70_000
    content = path.read_bytes()
    path.write_bytes(content.replace(b"900 \xc3\xa4", b"900 \xc3\xa5"))
    with pytest.raises(UserError, match=r"d\.h5 is damaged"):
        inspect(path)
