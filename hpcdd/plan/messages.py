"""The messages of a run: which collectives, how many bytes, among how many ranks. None is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config.schema import AggregationSettings, Config
from ..data.problem import GATHER_BYTES, Problem
from ..decomposition.boxes import split_evenly
from ..decomposition.rank_layout import assign
from ..parallel.gradient_averaging import groups
from . import fake_networks


@dataclass(frozen=True)
class Message:
    """A collective call.

    Attributes:
        collective: one of :data:`hpcdd.plan.collective_model.COLLECTIVES`.
        size: n of its model, bytes; see :mod:`hpcdd.plan.collective_model`.
        ranks: that take part.
        counted: bytes that the rank with most sends and receives, as results.json counts them.
        what: for people.
        number: how often the call is made.
    """

    collective: str
    size: int
    ranks: int
    counted: int
    what: str
    number: int = 1


@dataclass(frozen=True)
class SimulatedLayout:
    """How N ranks are used.

    Attributes:
        ranks: N.
        workers: ranks that own subdomains.
        across: ranks that together have each subdomain once.
        replicas: R, ranks that train copies of one subdomain's CNN.
    """

    ranks: int
    workers: int
    across: int
    replicas: int

    @classmethod
    def of(cls, num_subdomains: int, ranks: int) -> SimulatedLayout:
        """As :func:`hpcdd.decomposition.rank_layout.assign` does it."""
        across, replicas = min(num_subdomains, ranks), max(1, ranks // num_subdomains)
        return cls(ranks, across * replicas, across, replicas)


def bytes_of(messages: Sequence[Message]) -> int:
    """What results.json would count."""
    return sum(message.number * message.counted for message in messages)


def calls_of(messages: Sequence[Message]) -> int:
    """Calls of a rank."""
    return sum(message.number for message in messages)


def local_step(config: Config, problem: Problem, ranks: int) -> list[Message]:
    """Of a training step of the local phase: none, but between replicas."""
    layout = SimulatedLayout.of(len(problem.decomposition), ranks)
    if layout.replicas == 1:
        return []
    return _of_largest(
        [_of_shards(config, fake_networks.local_cnn(problem, s), layout.replicas) for s, *_ in problem.by_shape()]
    )


def dnn_step(config: Config, problem: Problem, ranks: int) -> list[Message]:
    """Of a training step of the DNN: none where root trains it."""
    if config.aggregation.placement == "root":
        return []
    rows = config.aggregation.batch_of(problem.samples["train"])
    across = SimulatedLayout.of(len(problem.decomposition), ranks).across
    return [sum_over_subdomains(config, config.aggregation, problem, rows, across)]


def coherent_step(config: Config, problem: Problem, ranks: int) -> list[Message]:
    """Of a training step of the coherent model; model-parallel one allreduce, whatever S, K and the CNNs are."""
    layout = SimulatedLayout.of(len(problem.decomposition), ranks)
    if config.coherent.parallelism == "data":
        return _of_shards(config, fake_networks.coherent(config, problem), layout.workers)
    batch = config.coherent.batch_of(problem.samples["train"])
    rows = split_evenly(batch, layout.replicas)[0][1]  # the first has most
    messages = [sum_over_subdomains(config, config.coherent_dnn, problem, rows, layout.across)]
    if layout.replicas > 1:
        parts = [fake_networks.part_of_coherent(config, problem, [s]) for s, *_ in problem.by_shape()]
        messages += _of_largest([_of_shards(config, part, layout.replicas, part.dnn.replicated()) for part in parts])
    return messages


def global_step(config: Config, problem: Problem, ranks: int) -> list[Message]:
    """Of a training step of the global CNN."""
    workers = SimulatedLayout.of(len(problem.decomposition), ranks).workers
    return _of_shards(config, fake_networks.global_cnn(problem), workers)


def gather(config: Config, problem: Problem, ranks: int) -> list[Message]:
    """Of the whole gather of the local outputs to root; none where the DNN is trained where they lie."""
    if config.aggregation.placement == "distributed":
        return []
    widths = problem.feature_widths(config.aggregation.features)
    of_sample = 4 * sum(widths)
    away = 1 - sum(widths[s] for s in assign(len(widths), ranks)[0][0]) / sum(widths)
    rows, messages = max(1, GATHER_BYTES // of_sample), []
    for n in problem.samples.values():
        for count, number in ((rows, n // rows), (n % rows, 1)):
            if count and number:
                size = count * of_sample
                messages.append(Message("gather", size, ranks, round(size * away), "local outputs", number))
    return messages


def spread(config: Config, problem: Problem, ranks: int) -> list[Message]:
    """Of root's DNN on its way to the ranks of its columns, once; none where nobody has it as a whole."""
    if config.aggregation.placement == "distributed":
        return []
    dnn, workers = fake_networks.dnn(config, problem), SimulatedLayout.of(len(problem.decomposition), ranks).workers
    columns = 4 * dnn.first.weight.numel()
    rest = 4 * sum(p.numel() for p in dnn.parameters()) - columns
    return [
        Message("scatter", columns, workers, columns, "the DNN's columns"),
        Message("broadcast", rest, workers, rest, "the DNN's other layers"),
    ]


def collect(problem: Problem, ranks: int) -> list[Message]:
    """Of the local CNNs' parameters on their way to root for model.h5; root's own don't travel."""
    num_subdomains = len(problem.decomposition)
    away, messages = num_subdomains - len(assign(num_subdomains, ranks)[0][0]), []
    if away and ranks > 1:
        state = fake_networks.local_cnn(problem, num_subdomains - 1).state_dict().values()
        size = sum(tensor.numel() * tensor.element_size() for tensor in state)
        messages.append(Message("send", size, ranks, size, "a CNN's parameters", away))
    return messages


def sum_over_subdomains(config: Config, dnn: AggregationSettings, problem: Problem, rows: int, ranks: int) -> Message:
    """The message of :class:`hpcdd.parallel.subdomain_sum.SubdomainSum`: rows x hidden numbers and the flag.

    Args:
        config, problem: of the run.
        dnn: of the DNN whose first layer it is.
        rows: of a batch.
        ranks: that have a part of it.
    """
    hidden = [*dnn.hidden, problem.info.num_classes][0]
    size = (8 if config.reduction == "ordered" else 4) * (rows * hidden + 1)
    return Message("allreduce", size, ranks, 2 * size, "the sum over the subdomains")


def _of_shards(
    config: Config, network: nn.Module, ranks: int, replicated: Sequence[nn.Parameter] = ()
) -> list[Message]:
    """Messages of ranks that train on shards of a batch: gradients in buckets, and batch norm's sums.

    See :mod:`hpcdd.parallel.gradient_averaging` and :mod:`hpcdd.parallel.shared_layers`.
    """
    if ranks == 1:
        return []
    special = set(replicated)
    ordinary = [p for p in reversed(list(network.parameters())) if p.requires_grad and p not in special]
    messages = []
    for group in groups(ordinary):
        size = 4 * (sum(p.numel() for p in group) + 1)
        messages.append(Message("allreduce", size, ranks, 2 * size, "gradients"))
    if replicated:
        size = 4 * ranks * (sum(p.numel() for p in replicated) + 1)
        messages.append(Message("allgather", size, ranks, size, "gradients of the common layers"))
    if config.shared_batches == "exact":
        channels = [module.num_features for module in network.modules() if isinstance(module, _BatchNorm)]
        for c in channels:
            forward, backward = 8 * ranks * (2 * c + 1), 8 * 2 * c
            messages.append(Message("allgather", forward, ranks, forward, "batch norm, forward"))
            messages.append(Message("allreduce", backward, ranks, 2 * backward, "batch norm, backward"))
    return messages


def _of_largest(candidates: Sequence[list[Message]]) -> list[Message]:
    return max(candidates, key=bytes_of)
