"""``bench coherent``: a step of the coherent model, model-parallel and data-parallel, compared with PyTorch's own DDP.

All contenders train the same model from the same parameters on the same batches, in the precision of the coherent
phase, in one job, on the same ranks and threads, interleaved in every round. Times are those of the slowest rank;
ratios are taken within a round.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..config.schema import Config
from ..core.interleaved_timing import quartiles, rotated, spread
from ..data.problem import Problem, build_problem
from ..data.reading import BoxReader
from ..data.samples import Batches, SideBySide
from ..models.batch_norm import pytorchs
from ..mpi.communicator import Array, Comm
from ..parallel.host_staging import Staging, seconds_of_copies
from ..parallel.team import Team
from ..phases.coherent import assemble, coherent_parameters
from ..training.optimizers import make_optimizer
from .gloo import Network, torch_group
from .rank_ladder import working_team
from .single_steps import Step, as_trained, data_parallel, model_parallel, scratch, timed, traffic
from .single_steps import batches as make_batches

REFERENCE = "DDP (gloo)"


@dataclasses.dataclass
class Contender:
    """One way to train.

    Attributes:
        step: one training step on a batch of row numbers.
        calls, bytes: MPI calls, and payload bytes sent and received, of one rank per step.
        seconds: per step, of the slowest rank, one number for each round.
    """

    step: Step
    calls: float = 0.0
    bytes: float = 0.0
    seconds: list[float] = dataclasses.field(default_factory=list)


def run(comm: Comm, config: Config, widths: Sequence[int], rounds: int, steps: int) -> None:
    """Called by all ranks; root prints.

    Raises:
        UserError: on all ranks, if the configuration does not fit the data set, or a rank would be idle.
    """
    for width in widths:
        model = config.model.model_copy(update={"width": width, "local_width": "match"})
        settings = config.model_copy(update={"model": model, "output": None})
        problem = comm.on_root(functools.partial(build_problem, settings))
        team = working_team(comm, settings, problem, ["coherent"])
        with torch_group(comm) as network:
            _compare(team, problem, network, rounds, steps)


def _compare(team: Team, problem: Problem, network: Network, rounds: int, steps: int) -> None:
    comm, settings = team.workers, team.config.coherent
    reader, everything = BoxReader(problem.info.path), range(team.layout.num_subdomains)
    samples = problem.read(reader, everything, team.placement.device)
    rows = problem.samples["train"]
    batches = make_batches(rows, settings.batch_of(rows), steps, team.placement.device)
    whole = SideBySide([samples[s]["train"] for s in everything])
    part = SideBySide([samples[s]["train"] for s in team.placement.subdomains])
    probe = _Probe(team)
    with contextlib.ExitStack() as stack:
        contenders = {
            f"model-parallel, {kind}": Contender(model_parallel(_with(team, reduction=kind), problem, part, stack))
            for kind in ("ordered", "fast")
        }
        for kind in ("exact", "fast"):
            step = data_parallel(_with(team, shared_batches=kind), problem, whole, stack)
            contenders[f"data-parallel, {kind}"] = Contender(step)
        contenders[REFERENCE] = _distributed_data_parallel(team, problem, as_trained(whole, stack))
        for contender in contenders.values():  # to warm up, and to count
            before = traffic(comm)
            for batch in batches:
                contender.step(batch)
            calls, size = ((now - then) / steps for now, then in zip(traffic(comm), before, strict=True))
            contender.calls, contender.bytes = contender.calls + calls, contender.bytes + size
        for number in range(rounds):
            for name in rotated(list(contenders), number):
                contender = contenders[name]
                contender.seconds.append(timed(comm, contender.step, batches, team.placement.device))
        with probe.attached():
            for batch in batches * rounds:
                contenders["model-parallel, ordered"].step(batch)
    if comm.is_root:
        _print(team, problem, network, contenders)
    probe.report(statistics.median(contenders["model-parallel, ordered"].seconds))


def _with(team: Team, **settings: str) -> Team:
    return dataclasses.replace(team, config=team.config.model_copy(update=settings))


# -- the contenders ----------------------------------------------------------------------------------------------------


def _distributed_data_parallel(team: Team, problem: Problem, samples: Batches) -> Contender:
    """The one-model form, its batch norm PyTorch's, in DistributedDataParallel, with the documentation's loop."""
    inner = pytorchs(assemble(team, problem, scratch(team, problem))).to(team.placement.device).train()
    network = nn.parallel.DistributedDataParallel(inner)
    optimizer = make_optimizer(network, team.config.coherent_from("scratch"))
    sharing, settings = team.sharing(team.workers), team.config.coherent

    def step(batch: torch.Tensor) -> None:
        inputs, labels = samples.batch(batch[sharing.part_of(len(batch))])
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=settings.bf16):
            loss = functional.cross_entropy(network(inputs), labels, label_smoothing=settings.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    # Its messages are gloo's, which nobody counts: gradients and, for batch norm, buffers that are broadcast.
    gradients = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    buffers = sum(b.numel() * b.element_size() for b in network.buffers())
    shared = team.workers.size > 1
    return Contender(step, bytes=float(2 * gradients + buffers) if shared else 0.0)


# -- measuring ---------------------------------------------------------------------------------------------------------


class _Probe:
    """Times the coherent step's allreduce from when the slowest rank is there, compared with a bare MPI call."""

    def __init__(self, team: Team) -> None:
        self._comm, self._device, self._direct = (
            team.across,
            torch.device(team.placement.device),
            team.config.comm.gpu_aware,
        )
        self._seconds: list[float] = []
        self._size = 0

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Inside the ``with`` block each allreduce is timed; a barrier before it takes the waiting out."""
        original = self._comm.sum

        def timed(values: Array, result: Array) -> None:
            self._comm.mpi.Barrier()
            start = time.perf_counter()
            original(values, result)
            self._seconds.append(time.perf_counter() - start)
            self._size = len(values)

        self._comm.sum = timed  # type: ignore[method-assign]
        yield
        self._comm.sum = original  # type: ignore[method-assign]

    def report(self, step: float) -> None:
        """Called by all ranks; root prints."""
        values, result, bare = np.ones(self._size, np.int64), np.empty(self._size, np.int64), []
        for _ in range(10 * len(self._seconds)):
            self._comm.mpi.Barrier()
            start = time.perf_counter()
            self._comm.mpi.Allreduce(values, result)
            bare.append(time.perf_counter() - start)
        if self._comm.is_root:
            ours, theirs = statistics.median(self._seconds), statistics.median(bare)
            print(
                f"inside the collective, beyond waiting (model-parallel, ordered, {self._size:,} numbers of 8 bytes): "
                f"{ours * 1e6:.0f} us, {ours / step:.2%} of a step; a bare Allreduce of them: {theirs * 1e6:.0f} us",
                flush=True,
            )
            if self._device.type != "cpu":
                copies = seconds_of_copies(Staging(direct=self._direct), self._size, torch.int64, self._device)
                print(
                    f"from the GPU to MPI and back: {copies * 1e6:.0f} us, {copies / step:.2%} of a step "
                    f"(comm.gpu_aware {str(self._direct).lower()})",
                    flush=True,
                )


def _print(team: Team, problem: Problem, network: Network, contenders: dict[str, Contender]) -> None:
    settings, reference = team.config.coherent, contenders[REFERENCE]
    parameters, placement = coherent_parameters(problem, team.config), team.placement
    print(
        f"\n{team.config.model.name}, global width {problem.widths.global_width}, local {problem.widths.local_width}: "
        f"coherent model with {parameters:,} parameters, {team.layout.num_subdomains} subdomains, "
        f"features {team.config.coherent_features}, hidden {list(team.config.coherent_dnn.hidden)}, "
        f"batch {settings.batch_size}, {settings.precision}, "
        f"{_counted(team.workers.size, 'rank')} on {_counted(team.layout.hosts, 'host')}, "
        f"{placement.device}, {_counted(placement.threads, 'thread')} each; "
        f"{_counted(len(reference.seconds), 'round')}; gloo over {network}"
    )
    print(
        f"{'':<24}{'samples/s':>10}{'speed / DDP: median (quartiles)':>34}{'calls/step':>12}"
        f"{'bytes/step':>13}{'DDP / bytes':>13}"
    )
    for name, contender in contenders.items():
        ratios = quartiles([ddp / ours for ddp, ours in zip(reference.seconds, contender.seconds, strict=True)])
        fewer = f"{reference.bytes / contender.bytes:,.1f}" if contender.bytes else "-"
        calls = "-" if contender is reference else f"{contender.calls:g}"
        print(
            f"{name:<24}{settings.batch_size / statistics.median(contender.seconds):>10,.0f}"
            f"{spread(ratios, digits=2):>34}{calls:>12}{contender.bytes:>13,.0f}{fewer:>13}",
            flush=True,
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
