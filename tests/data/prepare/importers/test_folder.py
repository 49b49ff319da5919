"""Images in folders, written with Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers import decode_pool, folder
from hpcdd.data.prepare.importers.image_files import ImageTransform
from hpcdd.data.writing import Split, write_dataset

from .sources import pixels_of
from .sources import read as read_source


def pixels(seed: int, *, colour: bool, size: tuple[int, int] = (6, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3) if colour else size).astype(np.uint8)


def read(root: Path, **options: object) -> tuple[Mapping[str, Split], tuple[str, ...]]:
    imported = read_source(folder, root, **options)
    return imported.splits, imported.class_names


def decode(path: Path) -> np.ndarray:
    return ImageTransform().decode(path.read_bytes(), str(path))


def write_folders(root: Path, *, colour: bool = False, splits: tuple[str, ...] = ("train", "test")) -> None:
    """Two PNGs of each of the classes wasp, ant and bee in each split, in an order that is not the alphabet's."""
    for number, split in enumerate(splits):
        for label, name in enumerate(("wasp", "ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for i in (1, 0):
                image = pixels(100 * number + 10 * label + i, colour=colour)
                Image.fromarray(image).save(root / split / name / f"{i}.png")


@pytest.mark.parametrize("colour", [False, True], ids=["grey", "RGB"])
def test_pixels_labels_and_order(tmp_path: Path, colour: bool) -> None:
    write_folders(tmp_path, colour=colour, splits=("train", "validation", "test"))
    splits, names = read(tmp_path)
    assert names == ("ant", "bee", "wasp")
    assert list(splits) == ["train", "validation", "test"]
    for number, split in enumerate(splits):
        assert splits[split].labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert splits[split].dtype == "uint8"
        got = pixels_of(splits[split])
        order = [100 * number + 10 * label + i for label in (1, 2, 0) for i in (0, 1)]
        expected = np.stack([pixels(seed, colour=colour) for seed in order])
        expected = expected.transpose(0, 3, 1, 2) if colour else expected[:, None]
        assert splits[split].image_shape == expected.shape[1:]
        assert np.array_equal(got, expected)


def test_many_files_come_in_several_blocks_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "_BLOCK_BYTES", 4 * 30)
    monkeypatch.setattr(decode_pool, "_GROUP", 3)
    write_folders(tmp_path)
    splits, _ = read(tmp_path)
    blocks = list(splits["train"].rows(np.arange(6), lambda _: None))
    assert [len(block) for block in blocks] == [4, 2]
    expected = [pixels(10 * label + i, colour=False) for label in (1, 2, 0) for i in (0, 1)]
    assert np.array_equal(np.concatenate(blocks)[:, 0], expected)


def test_files_are_sorted_whatever_their_order_in_the_folder(tmp_path: Path) -> None:
    write_folders(tmp_path)
    for i in np.random.default_rng(0).permutation(40):
        Image.fromarray(np.full((6, 5), i, np.uint8)).save(tmp_path / "train" / "ant" / f"more{i:02d}.png")
    splits, _ = read(tmp_path)
    assert pixels_of(splits["train"])[2:42, 0, 0, 0].tolist() == list(range(40))


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "README").write_text("no class")
    splits, names = read(tmp_path)
    assert len(splits["train"].labels) == 6
    assert names == ("ant", "bee", "wasp")


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "CMYK", "LA"])
def test_modes_become_grey_or_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(pixels(0, colour=True)).convert(mode)
    path = tmp_path / "image.tiff"
    image.save(path)
    decoded = decode(path)
    assert decoded.shape == ((1, 6, 5) if mode == "1" else (3, 6, 5))
    reference = np.asarray(image.convert("L" if mode == "1" else "RGB"))
    assert np.array_equal(decoded[0] if mode == "1" else decoded.transpose(1, 2, 0), reference)


def assert_refused_on_writing(root: Path, culprit: Path, message: str) -> None:
    """Sizes are met while the file is written; nothing may be left then."""
    splits, names = read(root)
    out = root / "out" / "d.h5"
    with pytest.raises(UserError, match=message) as caught:
        write_dataset(out, splits, name="d", class_names=names)
    assert str(culprit) in str(caught.value)
    assert list(out.parent.iterdir()) == []


def test_another_size_is_named(tmp_path: Path) -> None:
    write_folders(tmp_path)
    culprit = tmp_path / "test" / "wasp" / "1.png"
    Image.fromarray(pixels(0, colour=False, size=(5, 6))).save(culprit)
    assert_refused_on_writing(tmp_path, culprit, r"\(1, 5, 6\), but the first one has \(1, 6, 5\)")


def test_colour_among_grey_is_named(tmp_path: Path) -> None:
    write_folders(tmp_path)
    culprit = tmp_path / "train" / "bee" / "1.png"
    Image.fromarray(pixels(0, colour=True)).save(culprit)
    assert_refused_on_writing(tmp_path, culprit, r"\(3, 6, 5\), but the first one has \(1, 6, 5\)")


@pytest.mark.parametrize("content", ["empty", "cut", "text"])
@pytest.mark.parametrize("relative_path", ["train/ant/0.png", "test/bee/1.png"], ids=["first", "later"])
def test_a_damaged_file_is_named(tmp_path: Path, relative_path: str, content: str) -> None:
    write_folders(tmp_path)
    culprit = tmp_path / relative_path
    whole = culprit.read_bytes()
    culprit.write_bytes({"empty": b"", "cut": whole[:-30], "text": b"GIF? no"}[content])

    def convert() -> None:
        splits, names = read(tmp_path)
        write_dataset(tmp_path / "d.h5", splits, name="d", class_names=names)

    with pytest.raises(UserError, match="can't be read as an image") as caught:
        convert()
    assert str(culprit) in str(caught.value)
    assert not list(tmp_path.glob("*.h5*"))


def test_no_training_split(tmp_path: Path) -> None:
    write_folders(tmp_path, splits=("test",))
    with pytest.raises(UserError, match="must hold one folder per class for at least two classes, or folders train"):
        read(tmp_path)


def test_classes_alone_and_in_one_more_folder(tmp_path: Path) -> None:
    write_folders(tmp_path / "around", splits=("flowers",))
    (tmp_path / "around" / "README.png").write_text("no image of a class")
    for root in (tmp_path, tmp_path / "around", tmp_path / "around" / "flowers"):
        splits, names = read(root)
        assert (list(splits), names) == (["train"], ("ant", "bee", "wasp"))
        assert splits["train"].labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_classes_that_differ(tmp_path: Path, split: str) -> None:
    write_folders(tmp_path, splits=("train", "validation", "test"))
    (tmp_path / split / "bee").rename(tmp_path / split / "bees")
    with pytest.raises(UserError, match=rf"{split} has the classes \['ant', 'bees', 'wasp'\], but .*train has \['ant'"):
        read(tmp_path)


def test_one_class_and_no_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "ant").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds no images \(\.apng, "):
        read(tmp_path)
    for split in ("train", "test"):
        Image.fromarray(pixels(0, colour=False)).save(tmp_path / split / "ant" / "0.png")
    with pytest.raises(UserError, match=r"holds images of 1 classes \(ant\)"):
        read(tmp_path)


def test_a_dataset_file_from_folders(tmp_path: Path) -> None:
    write_folders(tmp_path, colour=True)
    splits, names = read(tmp_path)
    write_dataset(tmp_path / "d.h5", splits, name="d", class_names=names)
    with h5py.File(tmp_path / "d.h5") as file:
        assert np.array_equal(file["train/images"][0], pixels(10, colour=True).transpose(2, 0, 1))
        assert file.attrs["class_names"].tolist() == [b"ant", b"bee", b"wasp"]


def test_16_bits_are_refused_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(path)
    with pytest.raises(UserError, match=r"deep\.png has 16 bits per channel .PNG, mode I;16."):
        decode(path)
