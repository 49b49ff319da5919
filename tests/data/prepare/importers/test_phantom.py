"""The chest phantom: the same volumes from the same seed, lesions where lungs are, called synthetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers import phantom
from hpcdd.data.prepare.importers.decode_pool import DecodePool

from .sources import pixels_of, read

SIZE = [16, 20, 24]


def test_volumes_depend_on_seed_and_number_alone() -> None:
    first, same, other = (
        read(phantom, Path(), DecodePool(seed=seed), samples=samples, size=SIZE)
        for seed, samples in ((3, 12), (3, 8), (4, 8))
    )
    train = first.splits["train"]
    assert train.labels.tolist() == [0, 1] * 6
    assert (train.image_shape, train.dtype, first.class_names) == ((1, *SIZE), "uint8", ("healthy", "lesions"))
    images = pixels_of(train)
    assert np.array_equal(images[:8], pixels_of(same.splits["train"]))
    assert np.array_equal(images[[1, 6]], pixels_of(train.select(np.array([1, 6]))))
    assert not np.array_equal(images[:8], pixels_of(other.splits["train"]))
    assert len(np.unique(images.reshape(12, -1), axis=0)) == 12


def test_it_says_that_it_is_synthetic() -> None:
    imported = read(phantom, Path(), DecodePool(seed=5))
    assert imported.synthetic
    assert "synthetic" in imported.name
    assert imported.source == "synthetic, computed by hpcdd prepare phantom with seed 5; no patient's data"


def test_a_chest_has_air_tissue_and_lungs_where_they_belong() -> None:
    volume = phantom.volume([32, 32, 32], 0, 0, ill=False)[0]
    assert volume[:, 0].mean() < 15  # air before the body
    assert 170 < volume[8:24, 15, 15].mean() < 210  # tissue between the lungs
    assert 15 < np.median(volume[12:20, 12:20, 7:11]) < 60  # lung


def test_lesions_are_all_that_tells_the_classes_apart() -> None:
    """The same random numbers make the same chest; what is added lies in the lungs and is neither air nor tissue."""
    octants = []
    for index in range(16):
        healthy, ill = (phantom.volume([32, 32, 32], 0, index, ill=ill)[0].astype(int) for ill in (False, True))
        changed = np.argwhere(np.abs(ill - healthy) > 10)
        assert 10 < len(changed) < 3000
        assert (ill >= healthy - 30).all()
        middle = np.median(healthy[tuple(changed.T)])
        assert 15 < middle < 60  # the shade of lungs
        core = np.argwhere(ill - healthy > 40)
        octants.append(len(np.unique((core >= 16) @ [4, 2, 1])))
    assert np.mean(octants) < 4.5  # of eight subdomains; three lesions at most


@pytest.mark.parametrize("size", [[8, 8, 8], [8, 9, 40]], ids=str)
def test_small_and_flat_volumes(size: list[int]) -> None:
    for index in range(8):
        assert phantom.volume(size, 1, index, ill=True).shape == (1, *size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 7}, "--samples is 7; use 8 or more"),
        ({"size": [7, 32, 32]}, "--size is 7 32 32; use 8 or more along each axis"),
        ({"size": [4096, 4096, 4096]}, "at most 134,217,728 voxels"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(phantom, Path(), **options)
