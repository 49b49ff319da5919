"""Reading boxes: the correct pixels, no more bytes than needed, and no bad numbers."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcdd.core.errors import UserError
from hpcdd.data import reading
from hpcdd.data.coarse import average
from hpcdd.data.reading import BoxReader
from hpcdd.data.writing import Split, write_dataset
from hpcdd.decomposition.boxes import Box, Decomposition

from ..waiting import LIMIT


def write_images(path: Path, images: np.ndarray[Any, Any], **options: Any) -> None:
    with h5py.File(path, "w") as file:
        for split in ("train", "test"):
            file.create_dataset(f"{split}/images", data=images, **options)


def rchar() -> int:
    """Bytes that this process has asked the kernel to read so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    ("shape", "grid", "overlap"),
    [((1, 13, 10), (3, 2), 0), ((3, 12, 9), (2, 3), 2), ((2, 7, 6, 5), (2, 2, 2), 1)],
    ids=["2D", "2D with overlap", "3D"],
)
def test_boxes_are_slices(
    tmp_path: Path, shape: tuple[int, ...], grid: tuple[int, ...], overlap: int, dtype: str
) -> None:
    images = (np.random.default_rng(0).normal(size=(20, *shape)) * 50).astype(dtype)
    write_images(tmp_path / "d.h5", images, chunks=(8, *shape), compression="gzip")
    reader = BoxReader(tmp_path / "d.h5")
    decomposition = Decomposition.grid(shape[1:], grid, overlap)
    parts = [reader.read("train", box) for box in decomposition.boxes]
    for box, part in zip(decomposition.boxes, parts, strict=True):
        assert part.dtype == dtype
        assert part.shape == (20, shape[0], *box.shape)
        assert part.flags.c_contiguous
        window = [slice(a, b) for a, b in zip(box.start, box.stop, strict=True)]
        assert np.array_equal(part, images[:, :, *window])
    assert np.array_equal(decomposition.assemble(parts), images)
    expected = sum(20 * shape[0] * box.size * images.itemsize for box in decomposition.boxes)
    assert reader.bytes_read == expected == sum(part.nbytes for part in parts)


def test_the_named_split_is_read(tiny: Path) -> None:
    reader, box = BoxReader(tiny), Box((2, 3), (7, 12))
    for split in ("train", "test"):
        with h5py.File(tiny) as file:
            expected = file[split]["images"][:, :, 2:7, 3:12]
        assert np.array_equal(reader.read(split, box), expected)
    assert reader.bytes_read == (300 + 90) * 5 * 9


def test_what_several_threads_read_is_counted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits inside of a read until the other one is there too."""
    barrier = threading.Barrier(2, timeout=LIMIT)

    class Gated:
        """A dataset that is slow to name its type."""

        def __init__(self, images: h5py.Dataset) -> None:
            self._images = images

        def __getattr__(self, name: str) -> Any:
            return getattr(self._images, name)

        def __len__(self) -> int:
            return len(self._images)

        @property
        def dtype(self) -> np.dtype[Any]:
            barrier.wait()
            return self._images.dtype

    opened = reading._opened
    monkeypatch.setattr(reading, "_opened", lambda *arguments: Gated(opened(*arguments)))
    reader, box = BoxReader(tiny), Box((2, 3), (7, 12))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(reader.read, "train", box) for _ in range(2)]
        sizes = [one.result().nbytes for one in both]
    assert reader.bytes_read == sum(sizes)


def test_the_rest_of_the_file_is_not_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (4000, 1, 32, 32)).astype(np.uint8)
    path = tmp_path / "d.h5"
    write_images(path, images, chunks=(500, 1, 16, 16))
    size = path.stat().st_size
    assert size > 2 * images.nbytes
    reader, before = BoxReader(path), rchar()
    part = reader.read("train", Box((16, 0), (32, 16)))
    asked = rchar() - before
    assert np.array_equal(part, images[:, :, 16:, :16])
    assert reader.bytes_read == images.nbytes // 4
    assert reader.bytes_read <= asked < 1.1 * reader.bytes_read  # an eighth of the file


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_numbers_are_named(tmp_path: Path, value: float) -> None:
    images = np.zeros((30, 2, 8, 8), np.float32)
    images[17, 1, 6, 3] = images[21, 0, 7, 0] = value
    write_images(tmp_path / "d.h5", images)
    reader = BoxReader(tmp_path / "d.h5")
    with pytest.raises(UserError, match=r"test/images\[17\] .*NaN or infinite pixel \(2 such images in box \[4, 0\]"):
        reader.read("test", Box((4, 0), (8, 4)))
    assert not reader.read("test", Box((0, 0), (4, 8))).any()  # who does not own the pixel does not see it


def test_damage_in_the_pixels_is_a_user_error(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (50, 1, 32, 32)).astype(np.uint8)
    path = tmp_path / "d.h5"
    write_images(path, images, chunks=(50, 1, 32, 32), compression="gzip")
    with h5py.File(path) as file:
        offset = file["train/images"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(UserError, match="can't be read") as caught:
        BoxReader(path).read("train", Box((0, 0), (8, 8)))
    assert str(path) in str(caught.value)


def test_a_file_that_went_away_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        BoxReader(tmp_path / "gone.h5").read("train", Box((0, 0), (8, 8)))


def dataset(path: Path, images: np.ndarray[Any, Any], block: tuple[int, ...] | None, compression: int = 1) -> BoxReader:
    """A dataset file with the images in both splits, with coarse images or without."""
    split = Split.from_array(images, np.arange(len(images)) % 2)
    splits = {"train": split, "test": split}
    write_dataset(path, splits, name="d", class_names="ab", coarse=block, compression=compression)
    return BoxReader(path)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    ("shape", "block"), [((3, 12, 9), (2, 2)), ((1, 13, 10), (5, 1)), ((2, 7, 6, 5), (2, 2, 3))], ids=str
)
def test_averages_are_the_same_from_the_file_and_from_the_images(
    tmp_path: Path, shape: tuple[int, ...], block: tuple[int, ...], dtype: str
) -> None:
    images = (np.random.default_rng(0).normal(size=(20, *shape)) * 50).astype(dtype)
    whole = Box((0,) * len(block), shape[1:])
    stored, plain = dataset(tmp_path / "stored.h5", images, block), dataset(tmp_path / "plain.h5", images, None)
    expected = average(images, block)
    for split in ("train", "test"):
        for reader in (stored, plain):
            part = reader.read(split, whole, block)
            assert part.dtype == dtype
            assert part.flags.c_contiguous
            assert np.array_equal(part, expected)
    assert stored.bytes_read == 2 * expected.nbytes
    assert plain.bytes_read == 2 * images.nbytes


def test_coarse_images_of_another_block_or_of_a_part_are_averaged(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 2, 12, 9)).astype(np.uint8)
    reader = dataset(tmp_path / "d.h5", images, (2, 2))
    assert np.array_equal(reader.read("train", Box((0, 0), (12, 9)), (3, 3)), average(images, (3, 3)))
    assert reader.bytes_read == images.nbytes
    part = reader.read("train", Box((3, 1), (12, 6)), (2, 2))  # of whose blocks the stored ones know nothing
    assert np.array_equal(part, average(images[:, :, 3:12, 1:6], (2, 2)))
    assert reader.bytes_read == images.nbytes + 20 * 2 * 9 * 5


def test_a_block_of_ones_averages_nothing(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 2, 12, 9)).astype(np.uint8)
    reader = dataset(tmp_path / "d.h5", images, (2, 2))
    box = Box((0, 2), (12, 9))
    assert np.array_equal(reader.read("train", box, (1, 1)), reader.read("train", box))


@pytest.mark.parametrize("size", [1, 700, 5000, 1 << 30])
@pytest.mark.parametrize("chunks", [None, (8, 3, 12, 9), (1, 1, 5, 9), (20, 3, 4, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_tiles_of_the_file_give_the_same_averages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, chunks: tuple[int, ...] | None, size: int
) -> None:
    images = (np.random.default_rng(0).normal(size=(20, 3, 12, 9)) * 50).astype(dtype)
    write_images(tmp_path / "d.h5", images, chunks=chunks)
    monkeypatch.setattr(reading, "_READ_BYTES", size)
    reader = BoxReader(tmp_path / "d.h5")
    box = Box((1, 0), (12, 8))
    expected = average(images[:, :, 1:, :8], (2, 3))
    assert reader.read("test", box, (2, 3)).tobytes() == expected.tobytes()
    assert reader.bytes_read == 20 * 3 * 11 * 8 * images.itemsize  # every pixel once


@pytest.mark.parametrize("chunks", [None, (170, 3, 32, 32), (2000, 3, 8, 8)], ids=str)
def test_the_images_never_lie_in_memory_as_a_whole(tmp_path: Path, chunks: tuple[int, ...] | None) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20_000, 3, 32, 32), np.uint8)
    write_images(tmp_path / "d.h5", images, chunks=chunks)
    reader = BoxReader(tmp_path / "d.h5")
    tracemalloc.start()
    try:
        averages = reader.read("train", Box((0, 0), (32, 32)), (4, 4))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert averages.nbytes == images.nbytes // 16
    assert peak - averages.nbytes < 12 << 20 < images.nbytes // 4


@pytest.mark.parametrize("stored", [False, True], ids=["images", "coarse"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_numbers_in_averages_are_named(tmp_path: Path, value: float, stored: bool) -> None:
    images = np.random.default_rng(0).normal(size=(30, 2, 8, 8)).astype(np.float32)
    bad = images.copy()
    bad[17, 1, 6, 3] = bad[21, 0, 7, 0] = value
    labels = np.arange(30) % 2
    splits = {"train": Split.from_array(images, labels), "test": Split.from_array(bad, labels)}
    write_dataset(tmp_path / "d.h5", splits, name="d", class_names="ab", coarse=(2, 2) if stored else None)
    reader = BoxReader(tmp_path / "d.h5")
    assert np.isfinite(reader.read("train", Box((0, 0), (8, 8)), (2, 2))).all()
    name = "coarse" if stored else "images"
    with pytest.raises(
        UserError,
        match=rf"test/{name}\[17\] .*NaN or infinite pixel \(2 such images in box "
        rf"\[0, 0\] to",
    ):
        reader.read("test", Box((0, 0), (8, 8)), (2, 2))
