"""What a rank takes before it has any data: the interpreter, torch and its kernels, hpcdd, MPI if it is started."""

from __future__ import annotations

import importlib

import torch
from torch import nn
from torch.nn import functional

from .. import environment


def ready_bytes(device: str) -> int:
    """Bytes of this process in the host's memory once it has trained a CNN of a few parameters.

    What torch loads and compiles at the first step is in it, and MPI if it is started; nothing of any data set.
    """
    for module in ("hpcdd.progress.display", "hpcdd.model_file", "hpcdd.phases.baseline", "hpcdd.checkpoints.keeper"):
        importlib.import_module(module)
    with torch.random.fork_rng():
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Dropout(0.2)
        )
        classifier = nn.Sequential(nn.Flatten(), nn.Linear(8 * 4 * 4, 3))
        both = nn.Sequential(network, classifier).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(both.parameters(), fused=True)
        images = torch.rand(4, 1, 8, 8, device=device).to(memory_format=torch.channels_last)
        for _ in range(2):
            loss = functional.cross_entropy(both(images), torch.tensor([0, 1, 2, 0], device=device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return environment.resident_memory()[0]


def device_name(device: str) -> str:
    """``cpu``, or the name of the GPU."""
    return "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
