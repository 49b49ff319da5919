"""Memory of each rank at its fullest moment, by what is in it.

Tensors are counted exactly, from their shapes (:mod:`hpcdd.plan.simulate`); what interpreter and libraries take is
measured (:mod:`hpcdd.plan.runtime`). Not seen: scratch memory inside of kernels, and freed memory that is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .. import storage
from ..config import Config, TrainingSettings
from ..data.loading import Where
from ..data.order import WINDOW_BYTES
from ..decomposition import split_evenly
from ..phases.training import EVALUATION_BATCH
from ..problem import Problem
from . import networks, simulate
from .messages import Layout
from .simulate import Simulated

_MOST_TOGETHER = 6
"""CNNs of one rank whose coherent step is gone through; what more of them take follows from the last one."""
MOMENTS = {
    "local": "training its local CNNs",
    "dnn": "training the DNN",
    "coherent": "the coherent training",
    "global": "training the global CNN",
}


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank at one moment.

    Attributes:
        moment: one of :data:`MOMENTS`.
        runtime: interpreter, libraries, MPI.
        samples: where they are kept.
        weights: of all networks that it holds then, with their buffers and copies.
        gradients, optimizer: of what it trains then.
        activations: inputs, activations and temporary results of a step; or what an evaluation or the writing of a
            checkpoint takes, where that is more.
        decisions: logits of its CNNs on all samples; on root all decisions as well, while the DNN is trained.
    """

    moment: str
    runtime: int
    samples: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    decisions: int

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(value for value in dataclasses.astuple(self) if isinstance(value, int))

    def parts(self, on_gpu: bool, samples_on_gpu: bool) -> tuple[int, int]:
        """Bytes of the host and of the GPU."""
        if not on_gpu:
            return self.total, 0
        gpu = self.weights + self.gradients + self.optimizer + self.activations + samples_on_gpu * self.samples
        return self.total - gpu, gpu


class Memories:
    """Of a run on N ranks.

    Args:
        config, problem: of the run.
        ranks: N.
        runtime: bytes of a rank that is ready to train.
    """

    def __init__(self, config: Config, problem: Problem, ranks: int, runtime: int) -> None:
        self._config, self._problem, self._runtime = config, problem, runtime
        self._layout = Layout.of(len(problem.decomposition), ranks)
        self._known: dict[tuple[object, ...], Simulated] = {}

    def of(self, subdomains: Sequence[int], where: Where, *, is_root: bool) -> Memory:
        """Of a rank that owns some subdomains, at its fullest moment.

        Args:
            subdomains: which.
            where: it keeps its samples.
            is_root: whether it is rank 0.

        Raises:
            UserError: the user's own network can't be gone through with shapes alone.
        """
        config = self._config
        if not subdomains:
            return Memory("local", self._runtime, 0, 0, 0, 0, 0, 0)
        moments = [self._local(subdomains, where), self._dnn(subdomains, where, is_root=is_root)]
        if config.coherent.starts:
            moments.append(self._coherent(subdomains, where))
        if config.baseline.enabled:
            moments.append(self._global(subdomains, where))
        return max(moments, key=lambda memory: memory.total)

    def _local(self, subdomains: Sequence[int], where: Where) -> Memory:
        settings, cnns = self._config.local, [networks.local_cnn(self._problem, s) for s in subdomains]
        largest = max(range(len(cnns)), key=lambda i: _bytes(cnns[i]))
        rows = self._rows(settings, self._layout.replicas)
        step = self._once("local", subdomains[largest], rows, bf16=settings.precision == "bf16")
        return self._moment(
            "local", subdomains, where, settings, [cnns[largest]], step.peak_bytes, sum(map(_bytes, cnns))
        )

    def _dnn(self, subdomains: Sequence[int], where: Where, *, is_root: bool) -> Memory:
        settings, cnns = self._config.aggregation, [networks.local_cnn(self._problem, s) for s in subdomains]
        held = sum(map(_bytes, cnns))
        if settings.placement == "root" and not is_root:
            return self._moment("dnn", subdomains, where, None, [], 0, held)
        if settings.placement == "root":
            network: nn.Module = networks.dnn(self._config, self._problem)
        else:
            network = networks.head(self._config, self._problem, subdomains, "logits")
        found = self._moment(
            "dnn", subdomains, where, settings, [network], _parameters(network), held + _bytes(network)
        )
        gathered = self._problem.root_bytes if is_root else 0
        return dataclasses.replace(found, decisions=found.decisions + gathered)

    def _coherent(self, subdomains: Sequence[int], where: Where) -> Memory:
        config, problem, settings = self._config, self._problem, self._config.coherent
        own: nn.Module = networks.part_of_coherent(config, problem, subdomains)
        held = sum(_bytes(networks.local_cnn(problem, s)) for s in subdomains) + 2 * _bytes(own)
        trained, together, shared = own, list(subdomains), self._layout.replicas
        if settings.parallelism == "data":
            trained, together = networks.coherent(config, problem), list(range(len(problem.decomposition)))
            held, shared = held + _bytes(trained), self._layout.workers
        rows = self._rows(settings, shared)
        bf16 = settings.precision == "bf16"

        def peak(number: int) -> int:
            return self._once("coherent", tuple(together[:number]), rows, bf16=bf16).peak_bytes

        most = min(len(together), _MOST_TOGETHER)
        step = peak(most)
        if len(together) > most:
            step += (len(together) - most) * (step - peak(most - 1))
        return self._moment("coherent", subdomains, where, settings, [trained], step, held)

    def _global(self, subdomains: Sequence[int], where: Where) -> Memory:
        settings, network = self._config.baseline, networks.global_cnn(self._problem)
        held = sum(_bytes(networks.local_cnn(self._problem, s)) for s in subdomains) + _bytes(network)
        rows = self._rows(settings, self._layout.workers)
        step = self._once("global", 0, rows, bf16=settings.precision == "bf16")
        return self._moment("global", subdomains, where, settings, [network], step.peak_bytes, held)

    def _moment(
        self,
        name: str,
        subdomains: Sequence[int],
        where: Where,
        settings: TrainingSettings | None,
        trained: Sequence[nn.Module],
        step: int,
        held: int,
    ) -> Memory:
        """Puts a moment together.

        Args:
            name: of it.
            subdomains, where: of the rank.
            settings: of the training; None without.
            trained: networks that are trained together.
            step: the most bytes of all tensors of a step, gradients among them.
            held: bytes of all networks that are there.
        """
        samples = self._samples(subdomains, where)
        gradients = sum(map(_parameters, trained))
        state = 0 if settings is None else gradients * _states(settings)
        if settings is not None and settings.early_stopping is not None:
            held += sum(map(_bytes, trained))  # the best ones so far
        # A checkpoint is an HDF5 file in memory, its bytes, and what is read back.
        checkpoint = 3 * (state + sum(map(_bytes, trained)))
        activations = max(step - gradients, self._evaluating(subdomains) - gradients, checkpoint - gradients, 0)
        decisions = 4 * len(subdomains) * sum(self._problem.samples.values()) * self._problem.info.num_classes
        return Memory(name, self._runtime, samples, held, gradients, state, activations, decisions)

    def _samples(self, subdomains: Sequence[int], where: Where) -> int:
        needed = storage.bytes_needed(self._config, self._problem, subdomains)
        if where != "stream":
            return needed
        info = self._problem.info
        pixels = torch.Size(info.image_shape).numel() * torch.empty(0, dtype=getattr(torch, info.dtype)).element_size()
        windows = max(1, self._problem.samples["train"] * pixels // WINDOW_BYTES)
        return min(needed, 2 * needed // windows)

    def _evaluating(self, subdomains: Sequence[int]) -> int:
        return max(
            self._once("evaluation", s, EVALUATION_BATCH).peak_bytes for s in _one_of_each(self._problem, subdomains)
        )

    def _rows(self, settings: TrainingSettings, shared: int) -> int:
        rows = split_evenly(min(settings.batch_size, self._problem.samples["train"]), shared)[0][1]
        return max(rows, simulate.LEAST_ROWS)

    def _once(self, what: str, which: int | tuple[int, ...], rows: int, *, bf16: bool = False) -> Simulated:
        """A step that is gone through once for all ranks whose subdomains have the same shapes."""
        problem = self._problem
        several = which if isinstance(which, tuple) else (which,)
        shapes = tuple(problem.subimage_shape(s) for s in several) if what != "global" else ()
        key = what, shapes, rows
        if key not in self._known:
            images = [simulate.images(shape, rows, problem.info.dtype) for shape in shapes]
            if what == "evaluation":
                found = simulate.evaluation(networks.local_cnn(problem, several[0]), images[0])
            elif what == "local":
                network = networks.local_cnn(problem, several[0])
                found = simulate.training_step(network, images[0], rows, bf16=bf16)
            elif what == "global":
                whole = simulate.images(problem.info.image_shape, rows, problem.info.dtype)
                found = simulate.training_step(networks.global_cnn(problem), whole, rows, bf16=bf16)
            else:
                part = networks.part_of_coherent(self._config, problem, several)
                found = simulate.training_step(part, lambda: [make() for make in images], rows, bf16=bf16)
            self._known[key] = found
        return self._known[key]


def _one_of_each(problem: Problem, subdomains: Iterable[int]) -> list[int]:
    return list({problem.subimage_shape(s): s for s in subdomains}.values())


def _bytes(network: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def _parameters(network: nn.Module) -> int:
    """Bytes of what is trained."""
    return sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)


def _states(settings: TrainingSettings) -> int:
    """Numbers that the optimizer remembers of each parameter."""
    if settings.optimizer == "sgd":
        return int(settings.momentum > 0)
    return 2
