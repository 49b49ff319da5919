"""Writing: exact statistics, nothing half-written, the same bytes every time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcdd.core.errors import UserError
from hpcdd.data.coarse import average
from hpcdd.data.format import inspect
from hpcdd.data.writing import Indices, LeaveOut, Split, write_dataset

CLASSES = ["a", "b", "c"]


def images_of(dtype: str, n: int = 500, shape: tuple[int, ...] = (3, 9, 11)) -> np.ndarray[Any, Any]:
    """Full-range integers, or normal numbers; each channel with statistics of its own."""
    generator = np.random.default_rng(1)
    if dtype == "float32":
        channels = generator.normal(0, 1, (n, *shape)) * 3 + 5
        channels[:, 0] *= 100
    else:
        limits = np.iinfo(dtype)
        channels = generator.integers(limits.min, limits.max, (n, *shape), endpoint=True)
        channels[:, 0] //= 3
    return channels.astype(dtype)


def in_blocks(images: np.ndarray[Any, Any], rows: int) -> Split:
    labels = np.arange(len(images)) % len(CLASSES)
    blocks = [images[start : start + rows] for start in range(0, len(images), rows)]
    return Split(labels, images.shape[1:], str(images.dtype), lambda _rows, _leave_out: blocks)


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
def test_streamed_statistics_are_numpys(tmp_path: Path, dtype: str, rows: int) -> None:
    images = images_of(dtype)
    test = in_blocks(images[::-1][:30].copy(), 4)
    write_dataset(
        tmp_path / "d.h5",
        {"train": in_blocks(images, rows), "test": test},
        name="d",
        class_names=CLASSES,
        compression=1,
    )
    info = inspect(tmp_path / "d.h5")
    exact = images.astype(np.float64)
    np.testing.assert_allclose(info.mean, exact.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(info.std, exact.std((0, 2, 3)), rtol=1e-12)
    with h5py.File(tmp_path / "d.h5") as file:
        assert file["train/images"].dtype == dtype
        assert np.array_equal(file["train/images"], images)
        assert np.array_equal(file["test/images"], images[::-1][:30])
        assert np.array_equal(file["train/labels"], np.arange(500) % 3)


def test_statistics_of_volumes_longer_than_a_chunk(tmp_path: Path) -> None:
    images = images_of("int16", 40, (1, 24, 32, 32))  # 48 KiB each, so that ten make a chunk
    write_dataset(
        tmp_path / "d.h5",
        {"train": in_blocks(images, 25), "test": in_blocks(images, 40)},
        name="d",
        class_names=CLASSES,
    )
    info = inspect(tmp_path / "d.h5")
    np.testing.assert_allclose(info.mean, [images.astype(np.float64).mean()], rtol=1e-12)
    np.testing.assert_allclose(info.std, [images.astype(np.float64).std()], rtol=1e-12)
    with h5py.File(tmp_path / "d.h5") as file:
        assert len(file["train/images"].chunks) == 5
        assert file["train/images"].chunks[0] < 40
        assert np.array_equal(file["train/images"], images)


def good() -> dict[str, Split]:
    return {"train": in_blocks(images_of("uint8", 60), 20), "test": in_blocks(images_of("uint8", 30), 20)}


def breaking_off() -> Split:
    images = images_of("uint8", 60)

    def blocks(_rows: Indices, _leave_out: LeaveOut) -> Iterator[np.ndarray[Any, Any]]:
        yield images[:20]
        raise UserError("image 21 is damaged")

    return Split(np.arange(60) % 3, images.shape[1:], "uint8", blocks)


def constant(*channels: int) -> Split:
    images = images_of("uint8", 60)
    images[:, channels] = 7
    return in_blocks(images, 20)


def emptied() -> Split:
    """As with --skip-bad, where all files of a class are bad."""
    return leaving_out(list(range(2, 60, 3)), 60)


def with_labels(labels: np.ndarray[Any, Any]) -> Split:
    return Split(labels, (3, 9, 11), "uint8", lambda _rows, _leave_out: [images_of("uint8", 60)])


FAILURES = {
    "source breaks off": (breaking_off, UserError, "image 21 is damaged"),
    "dtype": (
        lambda: in_blocks(images_of("uint8").astype(np.float64), 100),
        UserError,
        "dtype float64 can't be stored",
    ),
    "constant": (lambda: constant(0, 1, 2), UserError, r"all pixels of the training images are equal .\[7.0, 7.0, 7.0"),
    "label without a name": (
        lambda: with_labels(np.arange(60) % 4),
        UserError,
        r"train/labels\[3\] is 3, out of range",
    ),
    "negative label": (lambda: with_labels(np.arange(60) % 3 - 1), UserError, r"train/labels\[0\] is -1"),
    "class without samples": (
        lambda: with_labels(np.arange(60) % 2),
        UserError,
        "1 of 3 classes have no training samples: c; .* remove these classes from all splits",
    ),
    "one class": (lambda: with_labels(np.zeros(60)), UserError, "2 of 3 classes have no training samples: b, c"),
    "a class that is emptied by bad files": (emptied, UserError, "no training samples after 20 bad files .* out: c;"),
    "fewer images than labels": (lambda: with_labels(np.arange(61) % 3), AssertionError, "60 images for 61 labels"),
    "more images than labels": (lambda: with_labels(np.arange(59) % 3), Exception, "."),
}


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize(("train", "error", "message"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_leaves_no_trace(
    tmp_path: Path, train: Any, error: type[Exception], message: str, existing: bool
) -> None:
    path = tmp_path / "d.h5"
    if existing:
        write_dataset(path, good(), name="d", class_names=CLASSES)
    before = path.read_bytes() if existing else None
    with pytest.raises(error, match=message) as caught:
        write_dataset(path, {**good(), "train": train()}, name="d", class_names=CLASSES)
    assert ".tmp" not in str(caught.value)  # a user never sees the temporary name
    assert [p.name for p in tmp_path.iterdir()] == (["d.h5"] if existing else [])
    assert not existing or path.read_bytes() == before


def test_a_constant_channel_has_standard_deviation_1(tmp_path: Path) -> None:
    """As the blue of fluorescence images in green and red."""
    said: list[str] = []
    splits = {"train": constant(1), "test": in_blocks(images_of("uint8", 60), 20)}
    info = write_dataset(tmp_path / "d.h5", splits, name="d", class_names=CLASSES, report=said.append)
    assert (info.mean[1], info.std[1]) == (7.0, 1.0)
    assert min(info.std[0], info.std[2]) > 10
    assert said == [
        "channel 1 is 7 in all training images; its standard deviation is set to 1, so the normalised channel is 0"
    ]


def test_without_a_test_split_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was not written: there is no group 'test'"):
        write_dataset(tmp_path / "d.h5", {"train": good()["train"]}, name="d", class_names=CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "one.h5", good(), name="d", class_names=CLASSES, source="s", licence="l", command="c")
    time.sleep(1.1)  # so that a time stamp in the file would differ
    write_dataset(tmp_path / "two.h5", good(), name="d", class_names=CLASSES, source="s", licence="l", command="c")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_attributes_folders_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "d.h5"
    write_dataset(path, good(), name="old", class_names=CLASSES)
    write_dataset(path, good(), name="new", class_names=CLASSES, source="s", licence="l", command="hpcdd c")
    info = inspect(path)
    assert (info.name, info.source, info.licence, info.class_names) == ("new", "s", "l", ("a", "b", "c"))
    with h5py.File(path) as file:
        assert file.attrs["command"] == b"hpcdd c"
    assert [p.name for p in path.parent.iterdir()] == ["d.h5"]


def test_compression_changes_the_size_and_nothing_else(tmp_path: Path) -> None:
    images = np.repeat(images_of("uint8", 60), 8, axis=3)
    splits = {"train": in_blocks(images, 60), "test": in_blocks(images, 60)}
    infos, sizes = [], []
    for level in (0, 9):
        path = tmp_path / f"{level}.h5"
        write_dataset(path, splits, name="d", class_names=CLASSES, compression=level)
        infos.append((inspect(path).mean, inspect(path).std))
        sizes.append(path.stat().st_size)
        with h5py.File(path) as file:
            assert np.array_equal(file["train/images"], images)
    assert infos[0] == infos[1]
    assert sizes[0] > 2 * images.nbytes > 2 * sizes[1]


def test_a_large_mean_does_not_swallow_the_standard_deviation(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = (1e4 + 1e-2 * generator.integers(-3, 4, (40, 1, 5, 5))).astype(np.float32)
    split = Split.from_array(images, np.arange(40) % 2)
    write_dataset(tmp_path / "d.h5", {"train": split, "test": split}, name="d", class_names=["a", "b"])
    np.testing.assert_allclose(inspect(tmp_path / "d.h5").std, images.astype(np.float64).std(), rtol=1e-6)


@pytest.mark.parametrize(("value", "message"), [(0.1, "are equal"), (np.nan, "NaN or infinite")])
def test_constant_and_nan_float_images_are_refused(tmp_path: Path, value: float, message: str) -> None:
    split = Split.from_array(np.full((40, 1, 5, 5), value, np.float32), np.arange(40) % 2)
    with pytest.raises(UserError, match=message):
        write_dataset(tmp_path / "d.h5", {"train": split, "test": split}, name="d", class_names=["a", "b"])
    assert not list(tmp_path.iterdir())


def test_an_output_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    split = Split.from_array(np.zeros((4, 1, 2, 2), np.uint8), np.arange(4) % 2)
    (tmp_path / "file").touch()
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "d.h5", "can't be written")):
        with pytest.raises(UserError, match=message):
            write_dataset(path, {"train": split, "test": split}, name="d", class_names=["a", "b"])


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize(
    ("shape", "block"), [((3, 9, 11), (2, 2)), ((1, 40, 64), (4, 1)), ((1, 6, 5, 4), (2, 2, 2))], ids=str
)
def test_coarse_images_are_stored_while_streaming(
    tmp_path: Path, shape: tuple[int, ...], block: tuple[int, ...], dtype: str, rows: int
) -> None:
    images = images_of(dtype, 300, shape)
    splits = {name: in_blocks(images[:n], rows) for name, n in (("train", 300), ("validation", 9), ("test", 30))}
    info = write_dataset(tmp_path / "d.h5", splits, name="d", class_names=CLASSES, compression=1, coarse=block)
    expected = average(images, block)
    assert info.coarse == block
    assert info.coarse_image_shape == expected.shape[1:]
    with h5py.File(tmp_path / "d.h5") as file:
        for split, n in info.samples.items():
            coarse = file[split]["coarse"]
            assert coarse.dtype == dtype
            rows = min(n, 2**19 // expected[0].nbytes)  # as many as fill a chunk, more than of the images
            assert coarse.chunks == (rows, *expected.shape[1:])
            assert coarse.compression == "gzip"
            assert coarse.attrs["block"].dtype == np.int64
            assert coarse.attrs["block"].tolist() == list(block)
            assert np.array_equal(coarse, expected[:n])
            assert np.array_equal(file[split]["images"], images[:n])


def test_coarse_images_change_nothing_else(tmp_path: Path) -> None:
    plain = write_dataset(tmp_path / "plain.h5", good(), name="d", class_names=CLASSES)
    both = write_dataset(tmp_path / "both.h5", good(), name="d", class_names=CLASSES, coarse=[3, 2])
    assert (plain.coarse, both.coarse) == (None, (3, 2))
    assert (plain.mean, plain.std, plain.image_shape) == (both.mean, both.std, both.image_shape)
    with h5py.File(tmp_path / "plain.h5") as file:
        assert set(file["train"]) == {"images", "images_checksums", "labels"}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ((2, 2, 2), "has 3 axes, but the images have 2"),
        ((2, 0), "must hold positive numbers"),
        ((1, 1), "averages nothing"),
        ((2, 12), "is larger than the images, 9 x 11"),
    ],
)
def test_a_block_that_does_not_fit_leaves_no_trace(tmp_path: Path, block: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=rf"d\.h5 was not written: block .* {message}"):
        write_dataset(tmp_path / "d.h5", good(), name="d", class_names=CLASSES, coarse=block)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("shape", "chunk"), [((3, 9, 11), (5, 6)), ((1, 9, 11), (4, 11)), ((1, 6, 5, 4), (3, 3, 2))], ids=str
)
def test_chunks_along_boxes_change_nothing_else(
    tmp_path: Path, shape: tuple[int, ...], chunk: tuple[int, ...], rows: int
) -> None:
    images = images_of("uint8", 60, shape)
    splits = {"train": in_blocks(images, rows), "test": in_blocks(images[:30], rows)}
    plain = write_dataset(tmp_path / "plain.h5", splits, name="d", class_names=CLASSES)
    cut = write_dataset(
        tmp_path / "cut.h5", splits, name="d", class_names=CLASSES, chunk=chunk, coarse=(2,) * len(chunk)
    )
    assert (plain.mean, plain.std) == (cut.mean, cut.std)
    with h5py.File(tmp_path / "cut.h5") as file:
        assert file["train/images"].chunks == (60, shape[0], *chunk)
        assert np.array_equal(file["train/images"], images)
        assert np.array_equal(file["train/coarse"], average(images, (2,) * len(chunk)))


def leaving_out(rows: list[int], step: int) -> Split:
    images = images_of("uint8", 60)

    def blocks(_rows: Indices, leave_out: LeaveOut) -> Iterator[np.ndarray[Any, Any]]:
        for row in rows:
            leave_out(row)
        kept = np.delete(images, rows, axis=0)
        yield from (kept[start : start + step] for start in range(0, len(kept), step))

    return Split(np.arange(60) % 3, images.shape[1:], "uint8", blocks)


@pytest.mark.parametrize("step", [1, 13, 60])
@pytest.mark.parametrize("rows", [[0], [59], [3, 4, 5, 40]], ids=str)
def test_rows_that_are_left_out(tmp_path: Path, rows: list[int], step: int) -> None:
    splits = {"train": leaving_out(rows, step), "test": in_blocks(images_of("uint8", 30), 20)}
    info = write_dataset(tmp_path / "d.h5", splits, name="d", class_names=CLASSES, coarse=(2, 2))
    kept = np.delete(images_of("uint8", 60), rows, axis=0)
    assert info.labels["train"].tolist() == np.delete(np.arange(60) % 3, rows).tolist()
    np.testing.assert_allclose(info.mean, kept.astype(np.float64).mean((0, 2, 3)), rtol=1e-12)
    with h5py.File(tmp_path / "d.h5") as file:
        assert np.array_equal(file["train/images"], kept)
        assert np.array_equal(file["train/coarse"], average(kept, (2, 2)))


def test_a_split_of_which_all_is_left_out(tmp_path: Path) -> None:
    splits = {"train": leaving_out(list(range(60)), 1), "test": in_blocks(images_of("uint8", 30), 20)}
    with pytest.raises(UserError, match="split 'train' has no readable image"):
        write_dataset(tmp_path / "d.h5", splits, name="d", class_names=CLASSES)
    assert list(tmp_path.iterdir()) == []
