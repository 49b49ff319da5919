"""Augmentation: every subdomain sees its part of one and the same view of the whole image."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpcdd.config.schema import Config
from hpcdd.config.sections import AugmentationSettings
from hpcdd.data.augmentation import Augmentation, AugmentedSamples
from hpcdd.data.coarse import average, average_of_tensor
from hpcdd.data.problem import Problem, build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.sample_loading import Where
from hpcdd.data.samples import AugmentationSeed
from hpcdd.data.writing import Split, write_dataset
from hpcdd.decomposition.boxes import Box, Subdomain

N = 40
CASES = {
    "flip": ((3, 12, 9), {"flip": [1]}, {}),
    "both flips": ((1, 8, 13), {"flip": [0, 1]}, {}),
    "translate": ((2, 12, 9), {"translate": 3}, {}),
    "all, overlap": ((1, 11, 10), {"flip": [1], "translate": [2, 1]}, {"grid": [2, 3], "overlap": 1}),
    "more translation than box": ((1, 6, 6), {"translate": 5, "flip": [0]}, {"grid": [3, 6]}),
    "3D": ((1, 6, 8, 5), {"flip": [2, 0], "translate": 2}, {"grid": [2, 2, 1]}),
}


@pytest.fixture(params=CASES, ids=str)
def problem_and_images(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Problem, np.ndarray[Any, Any]]:
    """A problem with augmentation and a coarse subdomain, and the training images of its file."""
    shape, augmentation, decomposition = CASES[request.param]
    images = np.random.default_rng(0).integers(0, 255, (N, *shape)).astype(np.uint8)
    split = Split.from_array(images, np.arange(N) % 2)
    write_dataset(tmp_path / "d.h5", {"train": split, "test": split}, name="d", class_names="ab")
    config = Config.model_validate(
        {
            "data": {"file": str(tmp_path / "d.h5"), "validation_fraction": 0.2},
            "decomposition": {"coarse": True, **decomposition},
            "augmentation": augmentation,
            "model": {"name": "vgg1", "local_width": 2},
            "coherent": {"starts": []},
        }
    )
    return build_problem(config), images


@pytest.fixture(params=["_cut", "_gathered"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a CPU, and that of a GPU."""
    monkeypatch.setattr(AugmentedSamples, "_cut", getattr(AugmentedSamples, request.param))


def pixels(samples: AugmentedSamples, rows: torch.Tensor | slice = slice(None)) -> np.ndarray[Any, Any]:
    """The pixels, as they are stored."""
    normalised, _ = samples.batch(rows)
    assert samples.mean is not None
    assert samples.std is not None
    return (normalised * samples.std + samples.mean).round().numpy().astype(np.uint8)


def reference(images: np.ndarray[Any, Any], augmentation: Augmentation, seed: int) -> np.ndarray[Any, Any]:
    """The whole images augmented as in one epoch, one after the other by numpy alone."""
    transforms = augmentation.draw(len(images), AugmentationSeed(seed))
    flip, first = transforms.flip, transforms.first
    padded = np.pad(images, [(0, 0), (0, 0), *[(p, p) for p in augmentation.translate]], mode="reflect")
    seen = []
    for image, number, start in zip(padded, flip.tolist(), first.tolist(), strict=True):
        window = [slice(a, a + n) for a, n in zip(start, images.shape[2:], strict=True)]
        seen.append(np.flip(image[:, *window], [1 + axis for axis in augmentation.flips[number]]))
    return np.stack(seen)


@pytest.mark.usefixtures("way")
def test_all_subdomains_together_see_the_augmented_image(
    problem_and_images: tuple[Problem, np.ndarray[Any, Any]],
) -> None:
    """Boxes, the coarse subdomain, and the whole image of the baseline."""
    problem, images = problem_and_images
    decomposition, reader = problem.decomposition, BoxReader(problem.info.path)
    assert problem.augmentation is not None
    assert decomposition.coarse is not None
    _, rows = problem.rows["train"]
    by_subdomain = {s: splits["train"] for s, splits in problem.read(reader, range(len(decomposition)), "cpu").items()}
    whole = problem.read_whole(reader, "cpu")["train"]
    for seed in (1, 2):
        augmented = reference(images[rows], problem.augmentation, seed)
        assert not np.array_equal(augmented, images[rows])
        seen = [pixels(samples.in_epoch(AugmentationSeed(seed))) for samples in by_subdomain.values()]
        assert np.array_equal(decomposition.assemble(seen[:-1]), augmented)
        assert np.array_equal(seen[-1], average(augmented, decomposition.coarse))
        assert np.array_equal(pixels(whole.in_epoch(AugmentationSeed(seed))), augmented)
        for box, part in zip(decomposition.boxes, seen[:-1], strict=True):  # with the overlap, too
            assert np.array_equal(part, augmented[:, :, *box.slices])


def test_samples_take_over_the_transforms_of_another_epoch_in_their_own_memory(
    problem_and_images: tuple[Problem, np.ndarray[Any, Any]],
) -> None:
    problem, _ = problem_and_images
    samples = problem.read(BoxReader(problem.info.path), [0], "cpu")[0]["train"]
    first, second = samples.in_epoch(AugmentationSeed(1)), samples.in_epoch(AugmentationSeed(2))
    assert first.transforms is not None
    kept = first.transforms.flip
    assert not np.array_equal(pixels(first), pixels(second))
    first.renew(second)
    assert np.array_equal(pixels(first), pixels(second))
    assert first.transforms.flip is kept


def test_what_is_not_trained_on_is_seen_as_it_is(problem_and_images: tuple[Problem, np.ndarray[Any, Any]]) -> None:
    """Other splits; and the training images where decisions about them are made."""
    problem, images = problem_and_images
    decomposition, (_, rows) = problem.decomposition, problem.rows["validation"]
    read = problem.read(BoxReader(problem.info.path), range(len(decomposition)), "cpu")
    for subdomain, splits in zip(decomposition.subdomains, read.values(), strict=True):
        part = images[:, :, *subdomain.box.slices]
        part = average(part, subdomain.block) if subdomain.is_coarse else part
        assert np.array_equal(pixels(splits["train"]), part[problem.rows["train"][1]])
        assert np.array_equal(pixels(splits["validation"]), part[rows])
        assert splits["validation"].in_epoch(AugmentationSeed(5)) is splits["validation"]
        assert splits["train"].shape == splits["test"].shape == tuple(part.shape[1:])


@pytest.mark.usefixtures("way")
def test_a_batch_is_rows_of_the_epoch(problem_and_images: tuple[Problem, np.ndarray[Any, Any]]) -> None:
    problem, _ = problem_and_images
    samples = problem.read(BoxReader(problem.info.path), [0], "cpu")[0]["train"].in_epoch(AugmentationSeed(9))
    everything, rows = pixels(samples), torch.tensor([7, 0, 30, 7])
    assert np.array_equal(pixels(samples, rows), everything[rows.numpy()])
    assert np.array_equal(pixels(samples, slice(3, 9)), everything[3:9])
    assert torch.equal(samples.batch(rows)[1], samples.labels[rows])


def test_flipped_boxes_that_are_the_same_are_read_once(tmp_path: Path) -> None:
    """A grid of 1 x 2, flipped along axis 0: no box leaves its place; along axis 1 each becomes the other."""
    split = Split.from_array(np.random.default_rng(0).integers(0, 9, (4, 1, 4, 6)).astype(np.uint8), np.arange(4) % 2)
    write_dataset(tmp_path / "d.h5", {"train": split, "test": split}, name="d", class_names="ab")
    for axis, times in ((0, 1), (1, 2)):
        config = Config.model_validate(
            {
                "data": {"file": str(tmp_path / "d.h5")},
                "decomposition": {"grid": [1, 2]},
                "augmentation": {"flip": [axis]},
            }
        )
        reader = BoxReader(tmp_path / "d.h5")
        build_problem(config).read(reader, [0], "cpu")
        assert reader.bytes_read == 4 * 12 * (times + 1)  # and once the test split


def test_transforms_are_drawn_evenly_and_anew_in_each_epoch() -> None:
    augmentation = Augmentation.from_settings(AugmentationSettings(flip=(0, 1), translate=(1, 2)), (9, 9))
    assert augmentation is not None
    assert augmentation.flips == ((), (0,), (1,), (0, 1))
    transforms = augmentation.draw(60_000, AugmentationSeed(3))
    flip, first = transforms.flip, transforms.first
    counts = np.zeros((4, 3, 5))
    np.add.at(counts, (flip.numpy(), *first.T.numpy()), 1)
    assert counts.min() > 800  # of 1,000 expected, six standard deviations
    again, other = augmentation.draw(60_000, AugmentationSeed(3)), augmentation.draw(60_000, AugmentationSeed(4))
    assert torch.equal(again.flip, flip)
    assert torch.equal(again.first, first)
    assert not torch.equal(other.flip, flip)


@pytest.mark.parametrize("axes", [(1,), (0, 1)], ids=str)
def test_flips_alternate(axes: tuple[int, ...]) -> None:
    """Half of the samples begin flipped; every sample passes through all its flips, then begins again."""
    settings = AugmentationSettings(flip=axes, alternate=True)
    augmentation = Augmentation.from_settings(settings, (9, 9))
    assert augmentation is not None
    drawn = [augmentation.draw(6_000, AugmentationSeed(100 + epoch, 7, epoch)).flip for epoch in range(9)]
    images = 2 ** len(axes)
    for first in range(9 - images + 1):
        turns = torch.stack(drawn[first : first + images])
        assert torch.equal(turns.sort(0).values, torch.arange(images).unsqueeze(1).expand(-1, 6_000))
    assert torch.equal(drawn[0], drawn[images])
    assert (torch.bincount(drawn[0]) / 6_000 - 1 / images).abs().max() < 0.03
    assert not torch.equal(drawn[0], augmentation.draw(6_000, AugmentationSeed(100, 8, 0)).flip)  # of another training


@pytest.mark.usefixtures("way")
def test_all_subdomains_see_parts_of_one_hole(problem_and_images: tuple[Problem, np.ndarray[Any, Any]]) -> None:
    """Cut out of the whole image, the coarse subdomain's average included: what is cut out is the mean, 0."""
    problem, _ = problem_and_images
    assert problem.augmentation is not None
    augmentation = dataclasses.replace(problem.augmentation, cutout=3)
    holed = dataclasses.replace(problem, augmentation=augmentation)
    reader, decomposition = BoxReader(problem.info.path), problem.decomposition
    whole = [variant.read_whole(reader, "cpu")["train"].in_epoch(AugmentationSeed(4)) for variant in (problem, holed)]
    plain, cut = (samples.batch(slice(None))[0] for samples in whole)
    size, transforms = plain.shape[2:], whole[1].transforms
    assert transforms is not None
    assert transforms.hole is not None
    for image, with_hole, hole in zip(plain, cut, transforms.hole.tolist(), strict=True):
        assert all(0 <= first <= n - 3 for first, n in zip(hole, size, strict=True))
        expected = image.clone()
        expected[:, *[slice(first, first + 3) for first in hole]] = 0
        assert torch.equal(with_hole, expected)
    by_subdomain = holed.read(reader, range(len(decomposition)), "cpu")
    for subdomain, splits in zip(decomposition.subdomains, by_subdomain.values(), strict=True):
        seen = splits["train"].in_epoch(AugmentationSeed(4)).batch(slice(None))[0]
        expected = cut[:, :, *subdomain.box.slices]
        if not subdomain.is_coarse:
            assert torch.equal(seen, expected)
        else:
            pool = torch.nn.functional.avg_pool2d if len(size) == 2 else torch.nn.functional.avg_pool3d
            averaged = pool(expected, subdomain.block, ceil_mode=True, count_include_pad=False)
            holes = (averaged - pool(plain, subdomain.block, ceil_mode=True, count_include_pad=False)).abs() > 1e-6
            assert (seen - averaged)[~holes].abs().max() < 0.02  # the stored average is rounded
        assert torch.equal(splits["validation"].batch(slice(None))[0], problem_batch(problem, subdomain, reader))


def problem_batch(problem: Problem, subdomain: Subdomain, reader: BoxReader) -> torch.Tensor:
    """The validation split of a subdomain without a hole."""
    number = problem.decomposition.subdomains.index(subdomain)
    return problem.read(reader, [number], "cpu")[number]["validation"].batch(slice(None))[0]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("where", ["memory", "stream"])
def test_samples_are_evaluated_in_all_their_flips(
    problem_and_images: tuple[Problem, np.ndarray[Any, Any]], where: Where
) -> None:
    problem, images = problem_and_images
    assert problem.augmentation is not None
    flipped = dataclasses.replace(problem, augmentation=dataclasses.replace(problem.augmentation, test_flip=True))
    reader, decomposition = BoxReader(problem.info.path), problem.decomposition
    read = flipped.read(reader, range(len(decomposition)), "cpu", where)
    for subdomain, splits in zip(decomposition.subdomains, read.values(), strict=True):
        for split, samples in splits.items():
            _, rows = problem.rows[split]
            seen, some = samples.evaluated(slice(None)), samples.evaluated(slice(3, 7))
            if split == "train":  # what the DNN learns from
                (alone,) = seen
                assert torch.equal(alone, samples.batch(slice(None))[0])
                continue
            assert len(seen) == len(flipped.augmentation.flips)  # type: ignore[union-attr]
            for axes, view, few in zip(flipped.augmentation.flips, seen, some, strict=True):  # type: ignore[union-attr]
                part = np.flip(images[slice(None) if rows is None else rows], [2 + axis for axis in axes])
                part = part[:, :, *subdomain.box.slices]
                part = average(part, subdomain.block) if subdomain.is_coarse else part
                assert np.array_equal(stored(view, flipped), part)
                assert np.array_equal(stored(few, flipped), part[3:7])


def stored(inputs: torch.Tensor, problem: Problem) -> np.ndarray[Any, Any]:
    shape = (1, -1, *[1] * len(problem.decomposition.image))
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(shape) for values in (problem.info.mean, problem.info.std)
    )
    return (inputs * std + mean).round().numpy().astype(np.uint8)


def test_nothing_to_be_done_is_none() -> None:
    assert Augmentation.from_settings(AugmentationSettings(), (5, 5)) is None
    assert Augmentation.from_settings(AugmentationSettings(translate=(0, 0)), (5, 5)) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"translate": 5}, r"translate is 5 pixels along axis 1, but the images have 5; use 0 to 4"),
        (
            {"translate": (1, 2, 3)},
            r"translate is \[1, 2, 3\], but the images have 2 spatial axes; give one number, or 2",
        ),
        ({"cutout": 5}, r"cutout is 5 pixels, but the images have 5; use 0 to 4"),
        ({"flip": (2,)}, r"flip names axis 2, but the images have 2 spatial axes; use 0 to 1"),
    ],
)
def test_what_does_not_fit_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation.from_settings(AugmentationSettings(**settings), (9, 5))
    with pytest.raises(ValueError, match=r"flip is \[1, 1\]; name each axis once"):
        AugmentationSettings(flip=(1, 1))


def test_regions_are_boxes_of_the_image() -> None:
    """Each pixel of a region, read or reflected, is the one that the flipped and translated image needs."""
    image = (7, 10)
    augmentation = Augmentation.from_settings(AugmentationSettings(flip=(1,), translate=2), image)
    assert augmentation is not None
    for corner in itertools.product(range(0, 6, 2), range(0, 9, 3)):
        box = Box(corner, tuple(min(n, c + 4) for c, n in zip(corner, image, strict=True)))
        for region, flipped in zip(augmentation.regions(box, image), augmentation.flips, strict=True):
            for axis, n in enumerate(image):
                a, b = box.start[axis], box.stop[axis]
                a, b = (n - b, n - a) if axis in flipped else (a, b)
                before, after = region.padding[axis]
                assert (region.box.start[axis] - before, region.box.stop[axis] + after) == (a - 2, b + 2)
                assert 0 <= region.box.start[axis] < region.box.stop[axis] <= n


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", [(3, 12, 9), (1, 7, 6, 5)], ids=["2D", "3D"])
def test_averages_of_tensors_are_those_of_arrays(shape: tuple[int, ...], dtype: str) -> None:
    images = (np.random.default_rng(0).normal(size=(20, *shape)) * 100).astype(dtype)
    for block in itertools.product((1, 2, 4), repeat=len(shape) - 1):
        averages = average_of_tensor(torch.from_numpy(images), block).numpy()
        assert averages.dtype == dtype
        np.testing.assert_allclose(
            averages, average(images, block), rtol=1e-5 if dtype == "float32" else 0, atol=1e-4 * (dtype == "float32")
        )
