"""The networks of a run as fake tensors: they have shapes, dtypes and a device, and take no memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from ..config.schema import Config
from ..data.problem import Problem
from ..models.coherent_model import CoherentModel, prepare_cnn
from ..models.dnn import DNN, rest_of
from ..models.registry import create
from ..parallel.sharded_coherent import ShardedCoherentModel, ShardedDNN
from ..parallel.subdomain_sum import from_fixed, sum_own


@functools.cache
def fake() -> FakeTensorMode:
    """What is made inside this context is fake; tensors of one mode only can meet."""
    return FakeTensorMode()


class SingleRankSum:
    """What :class:`hpcdd.parallel.subdomain_sum.SubdomainSum` does on one rank, with the same tensors and without a
    message.

    Args:
        ordered: in fixed point.
    """

    def __init__(self, ordered: bool) -> None:
        self._ordered = ordered

    def __call__(self, summands: Sequence[torch.Tensor]) -> torch.Tensor:
        """The sum of this rank's summands."""
        first = summands[0]
        mine = sum_own(summands, ordered=self._ordered)
        message = torch.cat([mine.view(-1), mine.new_zeros(1)])
        total = torch.empty_like(message)
        result = total[:-1]
        if self._ordered:
            result = from_fixed(result, first.dtype)
        return result.view(first.shape)


def cnn(problem: Problem, shape: Sequence[int], width: int) -> nn.Module:
    """A CNN of the problem's model on images of a shape (C, *spatial)."""
    with fake():
        return create(problem.model, shape, problem.info.num_classes, width)


def local_cnn(problem: Problem, subdomain: int) -> nn.Module:
    """CNN_s."""
    return cnn(problem, problem.subimage_shape(subdomain), problem.widths.local_width)


def global_cnn(problem: Problem) -> nn.Module:
    """The global CNN."""
    return cnn(problem, problem.info.image_shape, problem.widths.global_width)


def dnn(config: Config, problem: Problem, *, coherent: bool = False, widths: Sequence[int] | None = None) -> DNN:
    """The DNN on the local outputs, or the DNN of the coherent model.

    Args:
        config, problem: of the run.
        coherent: the DNN of the coherent model.
        widths: inputs from each subdomain; default: as the problem has them.
    """
    settings = config.coherent_dnn if coherent else config.aggregation
    inputs = widths or problem.feature_widths(settings.features)
    with fake():
        return DNN(inputs, settings.hidden, problem.info.num_classes, settings.dropout)


def head(config: Config, problem: Problem, subdomains: Sequence[int], *, coherent: bool) -> ShardedDNN:
    """The part of :func:`dnn` of a rank that owns some subdomains: their columns of the first layer, and the layers
    after it.
    """
    settings = config.coherent_dnn if coherent else config.aggregation
    widths = problem.feature_widths(settings.features)
    units = [*settings.hidden, problem.info.num_classes]
    with fake():
        blocks = {s: torch.empty(units[0], widths[s]) for s in subdomains}
        rest = rest_of(units, settings.dropout)
        reduction = SingleRankSum(config.reduction == "ordered")
        return ShardedDNN(blocks, torch.empty(units[0]), rest, reduction)  # type: ignore[arg-type]  # it has no messages


def part_of_coherent(config: Config, problem: Problem, subdomains: Sequence[int]) -> ShardedCoherentModel:
    """The part of the coherent model that a rank trains, model-parallel."""
    features = config.coherent_features
    cnns = {s: _part(config, problem, s) for s in subdomains}
    return ShardedCoherentModel(cnns, head(config, problem, subdomains, coherent=True), features)


def coherent(config: Config, problem: Problem) -> CoherentModel:
    """The whole coherent model, of which every rank trains a copy, data-parallel."""
    cnns = [_part(config, problem, s) for s in range(len(problem.decomposition))]
    return CoherentModel(cnns, dnn(config, problem, coherent=True), config.coherent_features)


def _part(config: Config, problem: Problem, subdomain: int) -> nn.Module:
    return prepare_cnn(
        local_cnn(problem, subdomain), config.coherent_features, config.coherent.dropout_scale, config.coherent.frozen
    )
