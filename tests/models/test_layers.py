"""Dropout with cheap random numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hpcdd.models.layers import Dropout

FORMATS = {
    "2D": ((64, 6, 7, 9), torch.channels_last),
    "3D": ((64, 3, 4, 5, 3), torch.channels_last_3d),
    "flat": ((64, 33), torch.contiguous_format),
}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1e-9, 1 - 1e-9])
@pytest.mark.parametrize(("shape", "memory"), FORMATS.values(), ids=FORMATS)
def test_what_stays_is_scaled_so_that_the_mean_is_kept(
    shape: tuple[int, ...], memory: torch.memory_format, p: float
) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape).to(memory_format=memory).requires_grad_()
    y = Dropout(p)(x)
    n, rate = x.numel(), min(round(p * 2**16), 2**16 - 1) / 2**16
    assert y.is_contiguous(memory_format=memory)
    assert set(y.unique().tolist()) <= {0.0, torch.tensor(1 / (1 - rate)).item()}
    spread = math.sqrt(rate * (1 - rate) / n)
    assert abs(float((y == 0).double().mean()) - rate) <= 5 * spread
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_neighbours_samples_and_calls_are_independent() -> None:
    torch.manual_seed(1)
    layer, x = Dropout(0.5), torch.ones(400, 401)
    first, second = layer(x) - 1, layer(x) - 1
    for one, other in (
        (first[:, 1:], first[:, :-1]),
        (first[1:], first[:-1]),
        (first, second),
        (first[:, 4:], first[:, :-4]),
    ):
        assert abs(float((one * other).mean())) < 5 / math.sqrt(one.numel())


def test_the_same_state_gives_the_same_mask_and_evaluation_draws_nothing() -> None:
    layer, x = Dropout(0.3), torch.randn(5, 3, 2)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    before = torch.get_rng_state()
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_bf16_and_torchs_own_class() -> None:
    layer = Dropout(0.25)
    assert isinstance(layer, nn.Dropout)
    assert layer(torch.ones(8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
