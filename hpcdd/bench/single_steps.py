"""Single training steps of a run, of every phase, to be measured: the same code and the same messages as in training.

Each maker gives a function that does one step on a batch of row numbers, int64 (b,). What it holds is set up on the
given stack, and goes with it.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from ..config.schema import TrainingSettings
from ..data.problem import Problem
from ..data.samples import AnySamples, AugmentationSeed, Batches, Samples, SideBySide, Subimages
from ..models.dnn import create_dnn
from ..mpi.communicator import Comm
from ..parallel.batch_shards import BatchSharing
from ..parallel.sharded_coherent import ShardedCoherentModel
from ..parallel.team import Team
from ..phases.coherent import assemble, initial_part
from ..phases.local import create_local_cnn
from ..training.optimizers import make_optimizer
from ..training.steps import PlainSteps

Step = Callable[[torch.Tensor], object]


def local(team: Team, problem: Problem, samples: Mapping[int, Subimages], stack: contextlib.ExitStack) -> Step:
    """One step of the local phase for each CNN of this rank.

    Args:
        team: of this rank.
        problem: what is to be solved.
        samples: by subdomain of this rank, its training split.
        stack: see above.
    """
    sharing, steps = team.sharing(team.replicas), []
    for s, subimages in samples.items():
        shape, width = problem.subimage_shape(s), problem.widths.local_width
        network = create_local_cnn(team.config, s, shape, problem.info.num_classes, width).to(team.placement.device)
        steps.append(plain_step(network, team.config.local, sharing, subimages, stack))
    return lambda batch: [step(batch) for step in steps]


def dnn_on_root(team: Team, problem: Problem) -> Step:
    """One step of the DNN on random features, as root trains it; no messages. To be used on root."""
    settings, labels = team.config.aggregation, problem.labels("train")
    widths = problem.feature_widths(settings.features)
    network = create_dnn(settings, widths, problem.info.num_classes, team.config.seed).train()
    features = torch.randn(len(labels), sum(widths), generator=torch.Generator().manual_seed(0))
    samples = Samples(features, labels)
    steps = PlainSteps(network, make_optimizer(network, settings), BatchSharing(), settings)
    return functools.partial(steps.step, samples)


def model_parallel(team: Team, problem: Problem, samples: SideBySide, stack: contextlib.ExitStack) -> Step:
    """One step of the model-parallel coherent model; ``samples`` are those of this rank's subdomains."""
    part, settings = scratch(team, problem), team.config.coherent_from("scratch")
    return plain_step(part, settings, team.sharing(team.replicas), samples, stack, part.dnn.replicated())


def data_parallel(team: Team, problem: Problem, samples: SideBySide, stack: contextlib.ExitStack) -> Step:
    """One step of the data-parallel coherent model; ``samples`` are those of all subdomains."""
    network = assemble(team, problem, scratch(team, problem)).to(team.placement.device)
    return plain_step(network, team.config.coherent_from("scratch"), team.sharing(team.workers), samples, stack)


def plain_step(
    network: nn.Module,
    settings: TrainingSettings,
    sharing: BatchSharing,
    samples: AnySamples,
    stack: contextlib.ExitStack,
    replicated: Sequence[nn.Parameter] = (),
) -> Step:
    """One step of a network on samples as an epoch shows them; see :class:`hpcdd.training.steps.PlainSteps`."""
    steps = PlainSteps(network.train(), make_optimizer(network, settings), sharing, settings, replicated)
    return functools.partial(stack.enter_context(steps).step, as_trained(samples, stack))


def scratch(team: Team, problem: Problem) -> ShardedCoherentModel:
    """This rank's part of the untrained coherent model, on its device."""
    return initial_part(team, problem, "scratch", {}, None).to(team.placement.device)


def as_trained(samples: AnySamples, stack: contextlib.ExitStack) -> Batches:
    """The samples as one epoch of a training sees them, augmented."""
    return stack.enter_context(samples.epoch(0, AugmentationSeed(0)))[1]


def batches(rows: int, batch_size: int, number: int, device: str) -> list[torch.Tensor]:
    """Some batches of numbers of ``rows`` rows, the same on every rank."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(rows, (batch_size,), generator=generator).to(device) for _ in range(number)]


def finish(device: str) -> None:
    """Waits for what a GPU still has to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def timed(comm: Comm, step: Step, batches: Sequence[torch.Tensor], device: str) -> float:
    """Collective: seconds per step of the slowest rank. All start together; early ones sleep until the last ends."""
    comm.mpi.Barrier()
    start = time.perf_counter()
    for batch in batches:
        step(batch)
    finish(device)
    return comm.maximum(round((time.perf_counter() - start) * 1e9)) / 1e9 / len(batches)


def traffic(comm: Comm) -> tuple[int, int]:
    """MPI calls of this rank so far, and their payload in bytes."""
    return sum(t.calls for t in comm.traffic.values()), sum(t.bytes for t in comm.traffic.values())
