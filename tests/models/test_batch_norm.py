"""Batch norm against float64: statistics, outputs and gradients, of many sizes and memory formats."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from hpcdd.config.sections import ModelSettings
from hpcdd.data.samples import channels_last
from hpcdd.models import batch_norm
from hpcdd.models.batch_norm import BatchNorm, accurate
from hpcdd.models.batched_networks import BatchedNetworks
from hpcdd.models.registry import create

NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
SHAPES = {
    "few pixels": (4, 8, 5, 5),
    "a little more than few": (8, 3, 5, 5),
    "one block": (32, 8, 8, 8),
    "odd": (15, 12, 31, 31),
    "images": (128, 16, 16, 16),
    "volumes": (4, 8, 32, 32, 32),
    "more channels than a block is wide": (3, 9000, 9, 5),
    "vectors": (3000, 5),
    "sequences": (16, 6, 300),
}
DATA = {
    "far from zero": lambda *shape: torch.randn(shape) + 3,
    "behind a ReLU": lambda *shape: torch.randn(shape).relu(),
    "almost constant": lambda *shape: 0.1 + 1e-3 * torch.randn(shape),
}


def laid_out(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=channels_last(x.ndim - 2)) if x.ndim > 3 else x


def norm_of(shape: tuple[int, ...], **settings: Any) -> nn.Module:
    norm = NORMS[len(shape)](shape[1], momentum=1.0, **settings)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.uniform_(norm.bias, 0.5, 2.0)
    return accurate(norm)


def results(norm: nn.Module, x: torch.Tensor, dy: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    y.backward(dy)
    tensors = {
        "mean": norm.running_mean,
        "variance": norm.running_var,
        "output": y.detach(),
        "input's gradient": x.grad,
    }
    return tensors | {f"{name}'s gradient": p.grad for name, p in norm.named_parameters()}


def errors(norm: nn.Module, x: torch.Tensor, dy: torch.Tensor) -> dict[str, float]:
    """Relative errors: the greatest of statistics, of norms of the rest."""
    exact = results(copy.deepcopy(norm).double(), x.double(), dy.double())
    relative_errors = {}
    for name, values in results(norm, x, dy).items():
        difference, size = values.double() - exact[name], exact[name]
        each = (difference / size).abs().max() if name in {"mean", "variance"} else difference.norm() / size.norm()
        relative_errors[name] = float(each)
    return relative_errors


def check(norm: nn.Module, x: torch.Tensor, dy: torch.Tensor) -> None:
    """To 1e-6 times the ratio of mean to standard deviation, where that is more than one; the mean to 1e-6."""
    relative_errors = errors(norm, x, dy)
    condition = max(1.0, float(x.mean() / x.std()))
    allowed = {name: 1e-6 if name == "mean" else condition * 1e-6 for name in relative_errors}
    assert all(error < allowed[name] for name, error in relative_errors.items()), relative_errors


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_sums_are_accurate(shape: tuple[int, ...], data: str) -> None:
    torch.manual_seed(0)
    check(norm_of(shape), laid_out(DATA[data](*shape)), laid_out(torch.randn(shape)))


def test_statistics_of_volumes_that_pytorch_gets_wrong() -> None:
    """The example of docs/upstream-batch-norm.md; PyTorch's own variance is wrong by 5e-4."""
    torch.manual_seed(0)
    shape = (4, 8, 64, 64, 64)
    x = laid_out(torch.randn(shape) + 3)
    norm, theirs = norm_of(shape), nn.BatchNorm3d(8, momentum=1.0)
    with torch.no_grad():
        norm(x)
        theirs(x)
    exact = x.double().var((0, 2, 3, 4))
    torch.testing.assert_close(norm.running_var.double(), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_mean.double(), x.double().mean((0, 2, 3, 4)), rtol=1e-6, atol=0)


@pytest.mark.slow
def test_sums_over_millions_of_pixels_are_accurate() -> None:
    torch.manual_seed(0)
    shape = (16, 8, 64, 128, 128)
    x = laid_out(torch.randn(shape) + 3)
    norm = norm_of(shape)
    with torch.no_grad():
        norm(x)
    for c in range(8):
        exact = x[:, c].double()
        assert abs(float(norm.running_mean[c] / exact.mean()) - 1) < 1e-6
        assert abs(float(norm.running_var[c] / exact.var()) - 1) < 1e-6


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_sums_are_accurate_on_several_threads(threads: int) -> None:
    torch.manual_seed(0)
    shape, before = SHAPES["volumes"], torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(norm_of(shape), laid_out(torch.randn(shape) + 3), laid_out(torch.randn(shape)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["x", "dy", "both"])
def test_other_memory_formats(kind: str) -> None:
    torch.manual_seed(0)
    shape = SHAPES["volumes"]
    x, dy = torch.randn(shape) + 3, torch.randn(shape)
    check(norm_of(shape), laid_out(x) if kind == "dy" else x, laid_out(dy) if kind == "x" else dy)


@pytest.mark.parametrize("settings", [{"affine": False}, {"bias": False}, {"track_running_stats": False}], ids=str)
def test_other_settings(settings: dict[str, bool]) -> None:
    torch.manual_seed(0)
    shape = SHAPES["images"]
    norm = norm_of(shape) if settings == {"bias": False} else norm_of(shape, **settings)
    if settings == {"bias": False}:
        norm.register_parameter("bias", None)
    x, dy = laid_out(torch.randn(shape) + 3).requires_grad_(), laid_out(torch.randn(shape))
    reference, exact = copy.deepcopy(norm).double(), x.detach().double().requires_grad_()
    y, expected = norm(x), reference(exact)
    y.backward(dy)
    expected.backward(dy.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)
    for mine, exact_buffer in zip(norm.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(mine.double(), exact_buffer.double(), rtol=1e-6, atol=0)


def test_a_cumulative_average_of_the_statistics() -> None:
    torch.manual_seed(0)
    norm, theirs = accurate(nn.BatchNorm2d(4, momentum=None)), nn.BatchNorm2d(4, momentum=None)
    for _ in range(3):
        x = laid_out(torch.randn(8, 4, 8, 8))
        norm(x)
        theirs(x)
    for mine, expected in zip(norm.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(mine, expected)


def test_bfloat16_is_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shape = SHAPES["images"]
    x, dy = laid_out(torch.randn(shape) + 3).bfloat16(), laid_out(torch.randn(shape)).bfloat16()
    rounded = {"output", "input's gradient"}
    # Few: by PyTorch's kernels, far below the rounding of what they normalise.
    relative_errors = errors(norm_of(shape), x, dy)
    assert all(error < (4e-3 if name in rounded else 2e-4) for name, error in relative_errors.items()), relative_errors
    monkeypatch.setattr(batch_norm, "_FEW", 0)
    relative_errors = errors(norm_of(shape), x, dy)
    assert all(error < (4e-3 if name in rounded else 1e-6) for name, error in relative_errors.items()), relative_errors


def test_evaluation_mode_is_pytorchs() -> None:
    torch.manual_seed(0)
    theirs = nn.BatchNorm2d(16)
    norm, x = accurate(copy.deepcopy(theirs)), laid_out(torch.randn(SHAPES["images"]))
    assert torch.equal(norm.eval()(x), theirs.eval()(x))


def test_the_next_layer_may_work_in_place() -> None:
    norm = norm_of((32, 8, 8, 8))
    x = laid_out(torch.randn(32, 8, 8, 8)).requires_grad_()
    torch.relu_(norm(x)).sum().backward()
    assert x.grad is not None


def test_the_input_is_checked() -> None:
    with pytest.raises(ValueError, match="expected 4D input"):
        accurate(nn.BatchNorm2d(3))(torch.randn(400, 3))


class Own(nn.BatchNorm2d):
    """A subclass that inherits its forward pass."""


class Different(nn.BatchNorm2d):
    """A subclass that has another forward pass."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(2 * input)


def test_layers_are_made_accurate_in_place_wherever_they_stand() -> None:
    norm = nn.BatchNorm2d(3)
    network = nn.ModuleDict({"a": norm, "b": nn.Sequential(Own(3), Different(3), nn.GroupNorm(1, 3)), "again": norm})
    state = network.state_dict()
    modules = dict(network.named_modules())
    assert accurate(accurate(network)) is network
    assert all(modules[name] is module for name, module in network.named_modules())
    assert {n for n, m in modules.items() if isinstance(m, BatchNorm)} == {"a", "b.0"}
    assert [type(m).__name__ for m in (norm, network["b"][0])] == ["BatchNorm2d", "Own"]
    assert isinstance(network["b"][0], Own)
    assert network.state_dict().keys() == state.keys()
    assert isinstance(copy.deepcopy(network)["a"], BatchNorm)


@pytest.mark.parametrize("name", ["vgg2", "resnet8", "tests.models.test_batch_norm:theirs"])
def test_every_network_is_created_with_accurate_layers(name: str) -> None:
    network = create(ModelSettings(name=name), (3, 8, 8), 4, 4)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, BatchNorm) for norm in norms)


def theirs(input_shape: tuple[int, ...], num_classes: int, width: int) -> nn.Module:
    """A CNN as a user writes it."""
    channels = input_shape[0]
    body = [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 12, 12, 12)], ids=["2D", "3D"])
def test_batched_networks_have_accurate_statistics(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    form = channels_last(len(shape) - 1)
    norms = [accurate(NORMS[len(shape) + 1](shape[0], momentum=1.0)).to(memory_format=form) for _ in range(3)]
    stack = BatchedNetworks(dict(enumerate(norms))).train()
    images = torch.randn(3, 64, *shape) + torch.arange(1, 4).view(3, *[1] * (len(shape) + 1))
    stack(torch.stack([batch.contiguous(memory_format=form) for batch in images]).requires_grad_()).sum().backward()
    axes = [0, *range(2, len(shape) + 1)]
    for norm, batch in zip(norms, images.double(), strict=True):
        torch.testing.assert_close(norm.running_mean.double(), batch.mean(axes), rtol=1e-6, atol=0)
        torch.testing.assert_close(norm.running_var.double(), batch.var(axes), rtol=1e-6, atol=0)
