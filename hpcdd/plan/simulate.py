"""Memory and floating point operations of a training step, found by tracing it with fake tensors."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..core.errors import UserError
from . import fake_networks


@dataclass(frozen=True)
class Simulated:
    """One step.

    Attributes:
        flops: floating point operations of its matrix products and convolutions; a multiplication and an addition are
            two.
        peak_bytes: the most that all tensors take at one time which the step makes: inputs, activations, gradients,
            temporary results; not the parameters. Of the scratch memory inside of kernels that of convolutions in a
            training is in it, see :func:`_scratch`.
        kept_bytes: those of them that the forward pass leaves for the backward pass.
    """

    flops: int
    peak_bytes: int
    kept_bytes: int

    def of_part(self, rows: int, whole: int) -> Simulated:
        """Costs of ``rows`` samples, in proportion to those of the ``whole`` batch that was traced."""
        return self if rows == whole else Simulated(*(value * rows // whole for value in dataclasses.astuple(self)))


LEAST_ROWS = 2
"""Fewest samples of a batch that is traced: batch norm accepts a single value only where ranks share its statistics."""


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

    def loss() -> torch.Tensor:
        labels = torch.zeros(rows, dtype=torch.int64)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return functional.cross_entropy(network(inputs()), labels)

    step = _simulated(network.train(), loss, training=True)
    for parameter in network.parameters():
        parameter.grad = None
    return step


def evaluation(network: nn.Module, inputs: Callable[[], Any]) -> Simulated:
    """A batch through a network in evaluation mode; arguments as for :func:`training_step`."""

    def output() -> torch.Tensor:
        with torch.no_grad():
            return cast(torch.Tensor, network(inputs()))

    return _simulated(network.eval(), output, training=False)


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


def _scratch(tensor: object) -> int:
    """Bytes of the copy that a convolution makes in a training: of an input or output (b, C, *spatial), or its weight.

    So it was measured with oneDNN on tensors that lie channels last; in evaluation mode it makes none.
    """
    return tensor.nbytes if isinstance(tensor, torch.Tensor) and tensor.dim() >= 4 else 0


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that are made inside the context and still referred to.

    Attributes:
        now: current number of bytes.
        peak: largest number of bytes so far.
    """

    def __init__(self, *, scratch: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self.now = 0
        self._scratch = scratch
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        old = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and id(tensor.untyped_storage()) not in old | self._seen:
                self._add(tensor.untyped_storage())
        if self._scratch and func.overloadpacket in _CONVOLUTIONS:
            self._note([_scratch(tensor) for tensor in tree_leaves((args, result))])
        return result

    def _note(self, more: Sequence[int] = ()) -> None:
        self.peak = max(self.peak, self.now + sum(more))

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._seen.add(key)
        self.now += size
        self._note()
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _simulated(network: nn.Module, forward: Callable[[], torch.Tensor], *, training: bool) -> Simulated:
    flops, live = FlopCounterMode(display=False), _LiveBytes(scratch=training)
    try:
        with fake_networks.fake(), flops, live:
            result = forward()
            kept = live.now
            if training:
                result.backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UserError(
            f"{type(network).__name__} can't be traced with shapes alone, without values ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); plan needs this of model.name"
        ) from error
    return Simulated(flops.get_total_flops(), live.peak, kept)
