"""Samples: normalised batch by batch, the stored pixels untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcdd.data import samples as module
from hpcdd.data.samples import Samples, channels_last, with_channels_last


def random_images(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy((np.random.default_rng(0).normal(size=shape) * 40 + 50).clip(0, 120).astype(dtype))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", [(10, 3, 5, 6), (10, 2, 4, 3, 5)], ids=["2D", "3D"])
@pytest.mark.parametrize("rows", [slice(None), slice(2, 7), torch.tensor([9, 0, 3])], ids=["all", "slice", "indices"])
def test_normalised_and_untouched(shape: tuple[int, ...], dtype: str, rows: slice | torch.Tensor) -> None:
    images, labels = random_images(dtype, shape), torch.arange(10) % 3
    before = images.clone()
    mean, std = np.linspace(30, 70, shape[1]), np.linspace(5, 50, shape[1])
    samples = Samples.of_images(images, labels, mean, std, "cpu")
    inputs, targets = samples.batch(rows)
    per_channel = (1, shape[1], *[1] * (len(shape) - 2))
    exact = (before.double().numpy() - mean.reshape(per_channel)) / std.reshape(per_channel)
    assert inputs.dtype == torch.float32
    np.testing.assert_allclose(inputs.numpy(), exact[rows], rtol=1e-5, atol=1e-5)
    assert torch.equal(targets, labels[rows])
    assert torch.equal(images, before)
    assert torch.equal(samples.inputs, before)
    assert samples.inputs.dtype == before.dtype
    assert len(samples) == 10


@pytest.mark.parametrize("axes", [2, 3])
def test_float_images_that_need_no_conversion_are_not_changed_in_place(axes: int) -> None:
    images = random_images("float32", (6, 3, *[4] * axes)).contiguous(memory_format=channels_last(axes))
    before = images.clone()
    samples = Samples.of_images(images, torch.zeros(6, dtype=torch.int64), [1.0, 2.0, 3.0], [2.0, 2.0, 2.0], "cpu")
    first, _ = samples.batch(slice(None))
    second, _ = samples.batch(slice(None))
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    first.zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize("axes", [2, 3])
def test_batches_lie_channels_last(axes: int) -> None:
    images = random_images("uint8", (6, 3, *[4] * axes))
    inputs, _ = Samples.of_images(images, torch.zeros(6), [0.0] * 3, [1.0] * 3, "cpu").batch(slice(1, 5))
    assert inputs.is_contiguous(memory_format=channels_last(axes))
    assert inputs.stride()[1] == 1
    assert torch.equal(inputs, images[1:5].float())


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", [(10, 3, 5, 6), (10, 1, 5, 6), (10, 2, 4, 3, 5), (0, 2, 4, 4)], ids=str)
def test_images_turned_in_their_own_memory_give_the_same_batches(
    shape: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 200)  # of several images, and of less than one
    images, labels = random_images(dtype, shape), torch.arange(len(torch.empty(shape))) % 3
    before, memory = images.clone(), images.data_ptr()
    turned = with_channels_last(images)
    assert turned.data_ptr() == memory
    assert torch.equal(turned, before)
    assert turned.is_contiguous(memory_format=channels_last(len(shape) - 2))
    statistics = [1.5] * shape[1], [3.0] * shape[1]
    for rows in (torch.tensor([9, 0, 3, 3])[: len(labels)], slice(2, 7)):
        one, other = (
            Samples.of_images(pixels, labels, *statistics, "cpu").batch(rows)[0] for pixels in (turned, before)
        )
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def test_the_training_split_gets_mean_0_and_std_1() -> None:
    images = random_images("uint8", (200, 2, 8, 8))
    exact = images.double()
    samples = Samples.of_images(
        images, torch.zeros(200), exact.mean((0, 2, 3)).tolist(), exact.std((0, 2, 3)).tolist(), "cpu"
    )
    inputs, _ = samples.batch(slice(None))
    assert torch.allclose(inputs.mean((0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(inputs.std((0, 2, 3)), torch.ones(2), atol=1e-5)


def test_features_pass_as_they_are() -> None:
    features, labels = torch.randn(8, 12), torch.arange(8)
    inputs, targets = Samples(features, labels).batch(torch.tensor([5, 1]))
    assert torch.equal(inputs, features[[5, 1]])
    assert targets.tolist() == [5, 1]


def test_from_the_host_to_a_gpu_pixels_go_through_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the host does not wait for them; where nothing moves, nothing is copied."""
    done: list[object] = []
    pixels = torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3)
    assert module.onto(pixels, torch.device("cpu")) is pixels

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        done.append("pinned")
        return tensor.clone()

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        done.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", to)
    assert torch.equal(module.onto(pixels, torch.device("cuda", 0)), pixels)
    assert done == ["pinned", ("cuda", True)]
