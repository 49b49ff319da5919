"""The contact sheet: samples of each class where they belong, boxes on them, what is synthetic said."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from hpcdd.core.errors import UserError
from hpcdd.data.format import DatasetInfo
from hpcdd.data.prepare import contact_sheet
from hpcdd.data.writing import Split, write_dataset
from hpcdd.decomposition.boxes import Decomposition


def dataset(folder: Path, shape: tuple[int, ...], *, classes: int = 2, dtype: str = "uint8") -> DatasetInfo:
    """Class k is of shade 60 + 20 k, but for one pixel."""
    labels = np.arange(4 * classes) % classes
    images = np.empty((len(labels), *shape), dtype)
    images.reshape(len(labels), -1)[:] = (60 + 20 * labels)[:, None]
    images[..., 0] = 0
    split = Split.from_array(images, labels)
    names = [f"class {k}" for k in range(classes)]
    return write_dataset(folder / "d.h5", {"train": split, "test": split}, name="d", class_names=names)


def sheet(
    tmp_path: Path, info: DatasetInfo, grid: tuple[int, ...] | None = None, *, synthetic: bool = False
) -> np.ndarray:
    decomposition = None if grid is None else Decomposition.grid(info.image_shape[1:], grid, 1)
    contact_sheet.write(tmp_path / "d.png", info, decomposition, synthetic=synthetic)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.h5", "d.png"]
    with Image.open(tmp_path / "d.png") as image:
        assert image.format == "PNG"
        return np.asarray(image)


def coloured(pixels: np.ndarray) -> np.ndarray:
    """Where a sheet has neither grey nor white."""
    return np.ptp(pixels[..., :3].astype(int), axis=-1) > 60


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 8, 8, 8), (2, 6, 7), (1, 300, 40), (1, 1, 900)], ids=str)
def test_samples_of_each_class_in_rows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = sheet(tmp_path, dataset(tmp_path, shape))
    pictures = pixels[28:, 150:]  # without words
    rows = [np.flatnonzero((pictures == shade).all(-1).any(1)) for shade in (60, 80)]
    assert all(row.size for row in rows)
    assert np.median(rows[0]) < np.median(rows[1])
    assert not coloured(pixels).any()
    assert max(pixels.shape[:2]) < 2000


@pytest.mark.parametrize(("shape", "grid"), [((1, 8, 8), (2, 2)), ((1, 8, 8, 8), (2, 2, 2))], ids=["2D", "3D"])
def test_boxes_are_drawn_on(tmp_path: Path, shape: tuple[int, ...], grid: tuple[int, ...]) -> None:
    pixels = sheet(tmp_path, dataset(tmp_path, shape), grid)
    assert coloured(pixels).sum() > 500
    colours = np.unique(pixels[coloured(pixels)], axis=0)
    assert 3 <= len(colours) <= 8


def test_what_is_synthetic_says_so(tmp_path: Path) -> None:
    info = dataset(tmp_path, (1, 8, 8))
    plain = sheet(tmp_path, info)
    said = sheet(tmp_path, info, synthetic=True)
    assert said.shape[0] > plain.shape[0]
    assert coloured(said[:60]).sum() > 50  # red words
    assert not coloured(plain[:60]).any()


def test_many_classes_and_other_dtypes(tmp_path: Path) -> None:
    pixels = sheet(tmp_path, dataset(tmp_path, (1, 4, 4), classes=101, dtype="float32"))
    assert pixels.shape[0] < 40 * 130
    repeated = sheet(tmp_path, dataset(tmp_path, (1, 4, 4), classes=101, dtype="float32"))
    assert np.array_equal(pixels, repeated)


def test_names_that_no_font_has(tmp_path: Path) -> None:
    split = Split.from_array(np.arange(64, dtype=np.uint8).reshape(4, 1, 4, 4), np.arange(4) % 2)
    names = ["\N{HIRAGANA LETTER A}" * 40, "line\nbreak"]
    info = write_dataset(tmp_path / "d.h5", {"train": split, "test": split}, name="\N{SNOWMAN}", class_names=names)
    sheet(tmp_path, info)


def test_a_sheet_that_can_not_be_written(tmp_path: Path) -> None:
    info = dataset(tmp_path, (1, 8, 8))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"d\.h5 was written, but its contact sheet .*folder\.png can't be"):
        contact_sheet.write(tmp_path / "folder.png", info, None, synthetic=False)
    assert not list(tmp_path.glob(".*"))


def test_a_file_that_is_damaged_by_then_is_the_users_error(tmp_path: Path) -> None:
    info = dataset(tmp_path, (1, 8, 8))
    decomposition = Decomposition.grid((8, 8), (2, 2))
    with h5py.File(info.path, "r+") as file:
        del file["train/images"]
    with pytest.raises(UserError, match=r"data\.file: .*d\.h5 is damaged \(.*\); copy or make it again"):
        contact_sheet.write(tmp_path / "d.png", info, None, synthetic=False)
    with pytest.raises(UserError, match=r"d\.h5 is damaged"):
        contact_sheet.of_one(info, decomposition, [0] * 4, "title")
