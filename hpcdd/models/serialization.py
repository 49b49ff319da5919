"""Parameters as HDF5 datasets, and as one run of bytes for a message. No pickle."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..core.hdf5 import whole

Network = TypeVar("Network", bound=nn.Module)
State = Mapping[str, torch.Tensor]
Bytes = npt.NDArray[np.uint8]


def write_state(group: h5py.Group, state: State) -> None:
    """Stores every tensor of a ``state_dict`` as a dataset of its name."""
    for name, tensor in state.items():
        group.create_dataset(name, data=tensor.detach().cpu().contiguous().numpy())


def read_state(group: h5py.Group) -> dict[str, torch.Tensor]:
    """The ``state_dict`` that :func:`write_state` stored, on the CPU; ValueError if the file does not hold it whole."""
    return {name: torch.from_numpy(np.array(whole(dataset))) for name, dataset in _datasets(group).items()}


def filled(template: Network, group: h5py.Group) -> Network:
    """A network on the CPU with the parameters and buffers that :func:`write_state` stored.

    Args:
        template: the network, on device ``meta``, or on the CPU if it is a user's CNN.
        group: of the file. Before memory is taken for a network on ``meta`` it is compared with what the file holds.

    Raises:
        ValueError: it holds those of another network.
    """
    expected, stored = template.state_dict(), _datasets(group)
    for name in dict.fromkeys([*expected, *stored]):
        wanted = tuple(expected[name].shape) if name in expected else "no parameter of that name"
        stored_shape = tuple(stored[name].shape) if name in stored else "no parameter of that name"
        if stored_shape != wanted:
            raise ValueError(f"{group.name}/{name}: its network has {wanted}, the file {stored_shape}")
    made = on_host(template) if any(t.is_meta for t in expected.values()) else template
    made.load_state_dict(read_state(group))
    return made


def pack(state: State) -> Bytes:
    """All tensors of a ``state_dict`` one after the other as bytes, in its order."""
    parts = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() for tensor in state.values()]
    return np.concatenate(parts) if parts else np.empty(0, np.uint8)


def unpack(buffer: Bytes, template: State) -> dict[str, torch.Tensor]:
    """The reverse of :func:`pack`, with names, shapes and dtypes from a ``state_dict`` of the same network."""
    state, start = {}, 0
    for name, tensor in template.items():
        stop = start + tensor.numel() * tensor.element_size()
        state[name] = torch.from_numpy(buffer[start:stop].copy()).view(tensor.dtype).reshape(tensor.shape)
        start = stop
    return state


def on_host(template: Network) -> Network:
    """A copy of a network that may be on device ``meta``, on the CPU, whose parameters and buffers are still to be set.

    ``Module.to_empty`` does the same, but for networks on ``meta`` it imports what torch knows of symbolic shapes: half
    a second of CPU time on every rank.
    """
    network = copy.deepcopy(template)
    state = network.state_dict()
    empty = {name: torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for name, t in state.items()}
    network.load_state_dict(empty, assign=True)
    return network


def _datasets(group: h5py.Group) -> dict[str, Any]:
    datasets: dict[str, Any] = {}
    group.visititems(lambda name, item: datasets.__setitem__(name, item) if isinstance(item, h5py.Dataset) else None)
    return datasets
