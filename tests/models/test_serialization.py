"""Parameters as bytes and as HDF5: what comes back is what went in, bit by bit."""

from __future__ import annotations

import copy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from hpcdd.models.resnet import ResNet
from hpcdd.models.serialization import on_host, pack, read_state, unpack, write_state
from hpcdd.models.vgg import VGG


def trained(kind: str) -> nn.Module:
    """A CNN whose batch norms have seen data, with its convolutions channels-last as in training."""
    torch.manual_seed(0)
    shape = (2, 4, 4, 4) if kind == "vgg 3D" else (2, 8, 8)
    network = ResNet(1, shape, 3, 4) if kind == "resnet" else VGG(2, shape, 3, 4, (0.2, 0.5))
    if len(shape) == 3:
        network = network.to(memory_format=torch.channels_last)
    for _ in range(3):
        network(torch.randn(5, *shape))
    return network


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert tensor.shape == other[name].shape
        assert tensor.contiguous().numpy().tobytes() == other[name].contiguous().numpy().tobytes()


KINDS = ["vgg", "vgg 3D", "resnet"]


@pytest.mark.parametrize("kind", KINDS)
def test_pack_and_unpack(kind: str) -> None:
    state = trained(kind).state_dict()
    buffer = pack(state)
    assert buffer.dtype == np.uint8
    assert buffer.nbytes == sum(t.numel() * t.element_size() for t in state.values())
    torch.manual_seed(1)
    template = {name: torch.randn(t.shape).to(t.dtype) for name, t in state.items()}
    back = unpack(buffer, template)
    assert_same(state, back)
    buffer[:] = 0  # what was unpacked has memory of its own
    assert_same(state, back)
    fresh = trained(kind)
    fresh.load_state_dict(back)
    assert_same(state, fresh.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_write_and_read(tmp_path: Path, kind: str) -> None:
    state = trained(kind).state_dict()
    with h5py.File(tmp_path / "s.h5", "w") as file:
        write_state(file.create_group("here"), state)
        write_state(file.create_group("there/deep"), {})
    with h5py.File(tmp_path / "s.h5") as file:
        assert "features.0.weight" in file["here"]
        assert_same(dict(sorted(state.items())), dict(sorted(read_state(file["here"]).items())))
        assert read_state(file["there/deep"]) == {}


def test_special_values_and_other_dtypes(tmp_path: Path) -> None:
    state = {
        "floats": torch.tensor([float("nan"), float("inf"), -0.0, 1e-42]),
        "scalar": torch.tensor(7),
        "flags": torch.tensor([[True], [False]]),
        "doubles": torch.arange(6, dtype=torch.float64).view(2, 3).T,
        "bytes": torch.arange(3, dtype=torch.uint8),
        "halves": torch.tensor([0.5, 2.0], dtype=torch.float16),
    }
    assert_same(state, unpack(pack(state), state))
    with h5py.File(tmp_path / "s.h5", "w") as file:
        write_state(file, state)
        assert_same(dict(sorted(state.items())), dict(sorted(read_state(file).items())))


def test_an_empty_state() -> None:
    assert pack({}).size == 0
    assert unpack(pack({}), {}) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_without_memory_gets_some(kind: str) -> None:
    original = trained(kind)
    on_meta = copy.deepcopy(original).to("meta")
    network = on_host(on_meta)
    assert {tensor.device.type for tensor in on_meta.state_dict().values()} == {"meta"}
    for (name, parameter), like in zip(network.named_parameters(), original.parameters(), strict=True):
        assert (parameter.stride(), parameter.requires_grad) == (like.stride(), like.requires_grad), name
    network.load_state_dict(original.state_dict())
    assert_same(network.state_dict(), original.state_dict())
