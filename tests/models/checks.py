"""Checks that every CNN family must pass."""

from __future__ import annotations

import torch
from torch import nn

from hpcdd.data.samples import channels_last


def check_logits_and_gradients(network: nn.Module, shape: tuple[int, ...], num_classes: int) -> None:
    """Logits of the right shape, a gradient for every parameter, and the same logits in channels-last memory."""
    images = torch.randn(3, *shape)
    logits = network(images)
    assert logits.shape == (3, num_classes)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    format_ = channels_last(len(shape) - 1)
    as_stored, as_trained = network(images), network.to(memory_format=format_)(images.to(memory_format=format_))
    torch.testing.assert_close(as_stored, as_trained, rtol=1e-4, atol=1e-5)
