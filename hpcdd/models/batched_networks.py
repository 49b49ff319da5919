"""CNNs of one shape as one network: every kernel computes all of them (torch.func.vmap over stacked parameters).

A small CNN leaves most of a GPU idle, and on a CPU its layers take less time than starting them. A convolution of S
CNNs becomes one grouped convolution, a batch norm one over all their channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.func import functional_call, vmap

from .batch_norm import BatchNorm
from .layers import ALL_BITS, Dropout, words_of


class BatchedNetworks(nn.Module):
    """S CNNs of one shape. Their parameters and buffers become views of the stacked ones, so training it trains them.

    Args:
        cnns: by subdomain; from :func:`hpcdd.models.registry.create`, of hpcdd's own families, or parts of such ones;
            on one device.

    Attributes:
        cnns: the same. Each can be evaluated by itself, in evaluation mode, with the trained parameters.
        generators: by subdomain, from which its dropout draws, on the CNNs' device.
        leaves: the parameters of all CNNs, (S, ...) each: what an optimizer gets.
        where: for each CNN's own parameters, the leaf and the number in it.
    """

    def __init__(self, cnns: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.cnns = dict(cnns)  # not registered, like the template in its tuple: the parameters are the leaves
        networks = list(cnns.values())
        names = [name for name, _ in networks[0].named_parameters()]
        device = networks[0].get_parameter(names[0]).device
        self.generators = {s: torch.Generator(device) for s in cnns}
        self._template = (_on_meta(networks[0], list(self.generators.values())),)
        self.leaves = nn.ParameterList()
        self.where: dict[nn.Parameter, tuple[nn.Parameter, int]] = {}
        for name in names:
            each = [network.get_parameter(name) for network in networks]
            leaf = nn.Parameter(_joined(each), each[0].requires_grad)
            self.leaves.append(leaf)
            self.where.update({parameter: (leaf, number) for number, parameter in enumerate(each)})
        self._parameters_of_all = dict(zip(names, self.leaves, strict=True))
        self._buffers_of_all = {
            name: _joined([network.get_buffer(name) for network in networks]) for name, _ in networks[0].named_buffers()
        }

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """In training mode: float (S, n, C, *spatial) -> outputs of the CNNs, (S, n, K)."""
        (template,) = self._template
        template.train(self.training)

        def of_one(parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], x: torch.Tensor) -> Any:
            return functional_call(template, (parameters, buffers), (x,))

        outputs: torch.Tensor = vmap(of_one)(self._parameters_of_all, self._buffers_of_all, inputs)
        return outputs


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The tensors stacked, (S, ...), each in its own memory layout; they become views of it."""
    first = tensors[0]
    stacked = torch.empty_strided(
        (len(tensors), *first.shape), (first.numel(), *first.stride()), dtype=first.dtype, device=first.device
    )
    with torch.no_grad():
        for part, tensor in zip(stacked, tensors, strict=True):
            part.copy_(tensor)
            tensor.data = part
    return stacked


def _on_meta(cnn: nn.Module, generators: Sequence[torch.Generator]) -> nn.Module:
    """The CNN without memory, as what is called with each CNN's parameters; its dropout draws from the generators."""
    with torch.device("meta"):
        template = copy.deepcopy(cnn).to("meta")
    for module in list(template.modules()):
        if isinstance(module, BatchNorm):
            module.batched = True
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, _StackedDropout(child, generators))
    return template


class _StackedDropout(nn.Module):
    """Dropout inside vmap: each CNN draws the factors that it would draw unstacked."""

    def __init__(self, dropout: Dropout, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.dropout, self.generators = dropout, generators

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, ...) of each CNN -> the same shape."""
        if not self.training or self.dropout.p == 0:
            return x
        return x * _Factors.apply(x, self.draw)  # type: ignore[no-any-return, no-untyped-call]

    def draw(self, x: torch.Tensor) -> torch.Tensor:
        """Factors for x (S, n, ...)."""
        shape = x.shape[1:]
        random_bits = torch.empty(len(self.generators), words_of(shape.numel()), dtype=torch.int64, device=x.device)
        for row, generator in zip(random_bits, self.generators, strict=True):
            row.random_(*ALL_BITS, generator=generator)
        return self.dropout.factors_of(random_bits, shape, x.dtype)


class _Factors(Function):
    """Dropout's factors: constants, drawn for each CNN inside vmap."""

    @staticmethod
    def forward(x: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The factors of one CNN outside vmap."""
        return draw(x.unsqueeze(0)).squeeze(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
        """Nothing is differentiated."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: torch.Tensor, draw: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        """The factors of all CNNs."""
        return draw(x.movedim(in_dims[0], 0)), 0
