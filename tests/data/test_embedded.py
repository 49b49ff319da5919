"""The data set inside the package."""

from __future__ import annotations

import h5py
import numpy as np

from hpcdd.data.format import EMBEDDED, inspect


def test_size_and_balance() -> None:
    assert EMBEDDED.stat().st_size <= 6_000_000
    info = inspect(EMBEDDED)
    assert (info.image_shape, info.dtype) == ((1, 28, 28), "uint8")
    assert info.samples == {"train": 10_000, "test": 2_000}
    assert np.bincount(info.labels["train"], minlength=10).tolist() == [1000] * 10
    assert np.bincount(info.labels["test"], minlength=10).tolist() == [200] * 10


def test_it_says_what_it_is_and_where_it_comes_from() -> None:
    info = inspect(EMBEDDED)
    assert len(set(info.class_names)) == 10
    assert "Sneaker" in info.class_names
    assert info.licence == "MIT"
    assert "zalandoresearch/fashion-mnist" in info.source
    with h5py.File(EMBEDDED) as file:
        assert file.attrs["command"].startswith(b"hpcdd prepare idx ")


def test_statistics_are_those_of_its_pixels() -> None:
    info = inspect(EMBEDDED)
    with h5py.File(EMBEDDED) as file:
        pixels = file["train/images"][:].astype(np.float64)
    np.testing.assert_allclose((info.mean[0], info.std[0]), (pixels.mean(), pixels.std()), rtol=1e-12)


def test_no_image_stands_in_both_splits() -> None:
    with h5py.File(EMBEDDED) as file:
        train, test = ({image.tobytes() for image in file[split]["images"][:]} for split in ("train", "test"))
    assert len(train) == 10_000
    assert not train & test
