"""Memory and floating point operations of a training step, found by going through it with fake tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..errors import UserError
from . import networks


@dataclass(frozen=True)
class Simulated:
    """One step.

    Attributes:
        flops: floating point operations of its matrix products and convolutions; a multiplication and an addition are
            two.
        peak_bytes: the most that all tensors take at one time which the step makes: inputs, activations, gradients,
            temporary results; not the parameters. Of the scratch memory inside of kernels that of convolutions is in
            it, see :func:`_scratch`.
    """

    flops: int
    peak_bytes: int

    def of_part(self, rows: int, whole: int) -> Simulated:
        """Of ``rows`` of the ``whole`` batch that was gone through, in proportion."""
        return self if rows == whole else Simulated(self.flops * rows // whole, self.peak_bytes * rows // whole)


LEAST_ROWS = 2
"""Of a batch that is gone through: batch norm takes no single value, but where several ranks share its statistics."""


def training_step(network: nn.Module, inputs: Callable[[], Any], rows: int, *, bf16: bool = False) -> Simulated:
    """A forward and a backward pass; the optimizer works in place.

    Args:
        network: of fake tensors.
        inputs: makes them, called within the step.
        rows: of the batch.
        bf16: mixed precision by autocast.

    Raises:
        UserError: the user's own network needs values, not only shapes.
    """

    def step() -> None:
        labels = torch.zeros(rows, dtype=torch.int64)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = functional.cross_entropy(network(inputs()), labels)
        loss.backward()  # type: ignore[no-untyped-call]

    found = _simulated(network.train(), step)
    for parameter in network.parameters():
        parameter.grad = None
    return found


def evaluation(network: nn.Module, inputs: Callable[[], Any]) -> Simulated:
    """A batch through a network in evaluation mode; arguments as for :func:`training_step`."""

    def step() -> None:
        with torch.no_grad():
            network(inputs())

    return _simulated(network.eval(), step)


def images(shape: tuple[int, ...], rows: int, dtype: str) -> Callable[[], torch.Tensor]:
    """Makes a batch of images as :class:`hpcdd.data.samples.Samples` does: taken out as stored, and normalised.

    Args:
        shape: (C, *spatial).
        rows: of the batch.
        dtype: of the stored pixels.
    """

    def make() -> torch.Tensor:
        stored = torch.empty(rows, *shape, dtype=cast(torch.dtype, getattr(torch, dtype)))
        mean = torch.zeros(1, shape[0], *[1] * (len(shape) - 1))
        return stored.to(torch.float32).sub(mean).div_(mean)

    return make


_CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
_BLOCK = 16


def _scratch(tensor: object) -> int:
    """Bytes of the copy that a convolution makes of an input or output (b, C, *spatial), or of its weight.

    oneDNN computes on copies whose channels are padded to blocks of 16 (its formats nChw16c and the like).
    """
    if not isinstance(tensor, torch.Tensor) or tensor.dim() < 4:
        return 0
    padded = -(-tensor.shape[1] // _BLOCK) * _BLOCK
    return tensor.shape[0] * padded * tensor.shape[2:].numel() * tensor.element_size()


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that are made inside the context and still referred to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        old = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in old | self._seen:
                self._add(tensor.untyped_storage())
        if func.overloadpacket in _CONVOLUTIONS:
            self.peak = max(self.peak, self.now + sum(map(_scratch, tree_leaves((args, result)))))
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _simulated(network: nn.Module, step: Callable[[], None]) -> Simulated:
    flops, live = FlopCounterMode(display=False), _LiveBytes()
    try:
        with networks.fake(), flops, live:
            step()
    except Exception as error:
        raise UserError(
            f"{type(network).__name__} can't be gone through with shapes alone, without values "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); plan needs that of model.name"
        ) from error
    return Simulated(flops.get_total_flops(), live.peak)
