"""Memory of each rank at its fullest moment, by what is in it.

    total = libraries + samples + weights + gradients + optimizer + activations + outputs

The moments are those of :data:`MOMENTS`. Of what a rank trains at that moment, with P numbers in its parameters:

    weights      4 P, of everything that it holds; once more with early stopping, which keeps the best so far, and
                 with an average of them
    gradients    4 P
    optimizer    4 P times 2 (Adam, AdamW), 1 (SGD and Muon with momentum) or 0
    activations  the most that the tensors of a step take at one time, counted from their shapes
                 (:mod:`hpcdd.plan.simulate`). CNNs that are batched: the sum over them. The coherent model: what the
                 forward passes of all CNNs keep, the most that one backward pass takes besides (of batched CNNs: the
                 sum), and the DNN's part. In addition half of the largest CNN's, for the heap keeps what they leave
                 (:mod:`hpcdd.core.heap`)
    outputs      4 n K for each of its CNNs, and 4 n F for what the DNN sees if it is not the logits; on root what
                 gather and DNN take as well

Interpreter and libraries are measured (:func:`ready_bytes`). Not seen: scratch memory inside of kernels other than
convolutions.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from ..config.schema import TrainingSettings
from ..core import environment
from ..data import sample_storage
from ..data.sample_loading import Where
from ..data.sample_order import WINDOW_BYTES
from ..decomposition.boxes import split_evenly
from ..phases.local import groups, trains_batched
from ..training.optimizers import make_optimizer
from . import fake_networks
from .machine import Machine
from .messages import SimulatedLayout
from .workload import Precision, Work, Workload

Moment = Literal["local", "dnn", "coherent", "global"]
MOMENTS: dict[Moment, str] = {
    "local": "training its local CNNs",
    "dnn": "training the DNN",
    "coherent": "the coherent training",
    "global": "training the global CNN",
}

MPI_BYTES = 20 << 20
"""What an MPI library takes of a rank, where it was not measured with it (MPICH 4.3: 17 MiB)."""


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
        outputs: logits of its CNNs on all samples; on root those of all CNNs as well, while the DNN is trained.
    """

    moment: Moment
    runtime: int
    samples: int = 0
    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    outputs: int = 0

    @property
    def total(self) -> int:
        """Of all kinds."""
        return sum(value for value in dataclasses.astuple(self) if isinstance(value, int))

    def on_gpu(self, where: Where) -> int:
        """Bytes that lie on the GPU of a rank that has one."""
        samples = self.samples if where == "device" else 0
        return self.weights + self.gradients + self.optimizer + self.activations + samples


@dataclass
class Memories:
    """The memory of the ranks of a run.

    Attributes:
        workload: of the run.
        ranks: N.
        runtime: bytes of a rank that is ready to train.
    """

    workload: Workload
    ranks: int
    runtime: int

    def __post_init__(self) -> None:
        self._config, self._problem = self.workload.config, self.workload.problem
        self._layout = SimulatedLayout.of(len(self._problem.decomposition), self.ranks)

    def of(self, subdomains: Sequence[int], where: Where, *, is_root: bool, device: str = "cpu") -> Memory:
        """Of a rank that owns some subdomains, at its fullest moment.

        Args:
            subdomains: which.
            where: it keeps its samples.
            is_root: whether it is rank 0.
            device: of the rank.

        Raises:
            UserError: the user's own network can't be traced with shapes alone.
        """
        if not subdomains:
            return Memory("local", self.runtime)
        cnns = {s: fake_networks.local_cnn(self._problem, s) for s in subdomains}
        moments = [self._local(cnns, where, device), self._dnn(cnns, where, is_root=is_root)]
        if self._config.coherent.starts:
            moments.append(self._coherent(cnns, where, device))
        if self._config.baseline.enabled:
            moments.append(self._global(cnns, where))
        return max(moments, key=lambda memory: memory.total)

    def _local(self, cnns: dict[int, nn.Module], where: Where, device: str) -> Memory:
        """One CNN is trained after the other, or those of one shape as a batch."""
        settings = self._config.local
        shapes = {s: self._problem.subimage_shape(s) for s in cnns}
        batched = trains_batched(self._config, device, self._layout.replicas)
        largest = max(groups(shapes, batched=batched), key=lambda group: sum(_bytes(cnns[s]) for s in group))
        rows = self._rows(settings, self._layout.replicas)
        step = self._peak(*[self.workload.local_cnn(s, rows, settings.computed_in) for s in largest])
        evaluating = self._peak_of_evaluation(cnns, settings, self._layout.replicas)
        trained = nn.ModuleList([cnns[s] for s in largest])
        return self._moment("local", cnns, where, settings, trained, step, evaluating=evaluating)

    def _dnn(self, cnns: dict[int, nn.Module], where: Where, *, is_root: bool) -> Memory:
        settings = self._config.aggregation
        rows = self._rows(settings, 1)
        if settings.placement == "distributed":
            head = fake_networks.head(self._config, self._problem, list(cnns), coherent=False)
            step = self._peak(self.workload.head(len(cnns), rows, coherent=False))
            memory = self._moment("dnn", cnns, where, settings, head, step, _bytes(head))
        elif is_root:
            dnn = fake_networks.dnn(self._config, self._problem)
            step = self._peak(self.workload.dnn(rows))
            memory = self._moment("dnn", cnns, where, settings, dnn, step, _bytes(dnn))
        else:
            memory = self._moment("dnn", cnns, where, None, nn.ModuleList(), 0)
        return dataclasses.replace(memory, outputs=memory.outputs + is_root * self._problem.root_bytes)

    def _coherent(self, cnns: dict[int, nn.Module], where: Where, device: str) -> Memory:
        """All CNNs are trained together: own ones, or in the data-parallel form copies of all."""
        config, problem, settings = self._config, self._problem, self._config.coherent
        part: nn.Module = fake_networks.part_of_coherent(config, problem, list(cnns))
        trained, subdomains, shards, copies = part, list(cnns), self._layout.replicas, 2 * _bytes(part)
        batched = trains_batched(config, device, shards)
        if settings.parallelism == "data":
            trained, subdomains = fake_networks.coherent(config, problem), list(range(len(problem.decomposition)))
            shards, copies, batched = self._layout.workers, copies + _bytes(trained), False
        rows = self._rows(settings, shards)
        head = self._peak(self.workload.head(len(subdomains), rows, coherent=True))
        grouped = groups({s: problem.subimage_shape(s) for s in subdomains}, batched=batched)
        largest = max(self._peak_of(s, rows, settings.computed_in) for s in subdomains)
        step = self._forward_and_backward(grouped, rows, settings.computed_in) + largest // 2 + head
        evaluating = self._peak_of_evaluation(subdomains, settings, shards)
        return self._moment("coherent", cnns, where, settings, trained, step, copies, evaluating)

    def _global(self, cnns: dict[int, nn.Module], where: Where) -> Memory:
        settings, network = self._config.baseline, fake_networks.global_cnn(self._problem)
        step = self._peak(self.workload.global_cnn(self._rows(settings, self._layout.workers)))
        evaluating = self._peak(self.workload.global_evaluation(self._evaluated(settings, self._layout.workers)))
        step += self._left_on_heap(cnns)
        return self._moment("global", cnns, where, settings, network, step, _bytes(network), evaluating)

    def _left_on_heap(self, cnns: Iterable[int]) -> int:
        """Bytes of free blocks that earlier training leaves on the heap, which tensors of whole images don't fit."""
        coherent = bool(self._config.coherent.starts)
        settings = self._config.coherent if coherent else self._config.local
        rows = self._rows(settings, self._layout.replicas)
        if coherent:
            return self._forward_and_backward([[s] for s in cnns], rows, settings.computed_in)
        return max(self._peak_of(s, rows, settings.computed_in) for s in cnns)

    def _moment(
        self,
        name: Moment,
        cnns: dict[int, nn.Module],
        where: Where,
        settings: TrainingSettings | None,
        trained: nn.Module,
        step: int,
        more: int = 0,
        evaluating: int = 0,
    ) -> Memory:
        """Memory at one moment.

        Args:
            name: of it.
            cnns: of the rank, by subdomain.
            where: it keeps its samples.
            settings: of the training; None without.
            trained: what is trained.
            step: the most bytes of all tensors of a step, gradients among them.
            more: bytes of the networks that are there besides the rank's CNNs.
            evaluating: the most bytes of all tensors of a batch in evaluation mode.
        """
        gradients, copy = _parameters(trained), _bytes(trained)
        state = 0 if settings is None else gradients * _states(settings)
        held = sum(map(_bytes, cnns.values())) + more
        if settings is not None:  # the best so far, and the average
            held += copy * ((settings.early_stopping is not None) + (settings.ema > 0))
        # A checkpoint is an HDF5 file in memory, and its bytes.
        activations = max(step, evaluating, 2 * (state + copy), gradients) - gradients
        problem = self._problem
        features = self._config.aggregation.features
        kept = len(cnns) * problem.info.num_classes  # logits, and the features where those are not the same
        if features != "logits":
            widths = problem.feature_widths(features)
            kept += sum(widths[s] for s in cnns)
        outputs = 4 * sum(problem.samples.values()) * kept
        samples = self._samples(list(cnns), where)
        return Memory(name, self.runtime, samples, held, gradients, state, activations, outputs)

    def _forward_and_backward(self, grouped: Sequence[Sequence[int]], rows: int, precision: Precision) -> int:
        """Forward through all CNNs, then backward group by group, through the CNNs of a group at once."""
        kept, besides = 0, 0
        for group in grouped:
            steps = [self.workload.simulated(self.workload.local_cnn(s, rows, precision)) for s in group]
            kept += sum(step.kept_bytes for step in steps)
            besides = max(besides, sum(step.peak_bytes - step.kept_bytes for step in steps))
        return kept + besides

    def _peak_of(self, subdomain: int, rows: int, precision: Precision) -> int:
        return self.workload.simulated(self.workload.local_cnn(subdomain, rows, precision)).peak_bytes

    def _peak(self, *units: Work) -> int:
        """Peak bytes of units of work that are in memory at the same time, with what the heap keeps of them."""
        peaks = [self.workload.simulated(work).peak_bytes for work in units]
        return sum(peaks) + max(peaks) // 2

    def _peak_of_evaluation(self, subdomains: Iterable[int], settings: TrainingSettings, shards: int) -> int:
        batch = self._evaluated(settings, shards)
        return max(self._peak(self.workload.local_evaluation(s, batch)) for s in subdomains)

    def _evaluated(self, settings: TrainingSettings, shards: int) -> int:
        """Rows of a batch in evaluation mode."""
        most = max(self._problem.samples.values())
        return -(-min(settings.evaluation_batch, most) // shards)

    def _samples(self, subdomains: Sequence[int], where: Where) -> int:
        needed = sample_storage.bytes_needed(self._config, self._problem, subdomains)
        if where != "stream":
            return needed
        info = self._problem.info
        pixels = torch.Size(info.image_shape).numel() * torch.empty(0, dtype=getattr(torch, info.dtype)).element_size()
        windows = max(1, self._problem.samples["train"] * pixels // WINDOW_BYTES)
        return min(needed, 2 * needed // windows)

    def _rows(self, settings: TrainingSettings, shards: int) -> int:
        return split_evenly(settings.batch_of(self._problem.samples["train"]), shards)[0][1]


def ready_bytes(device: str) -> int:
    """Bytes of this process in the host's memory once it has trained a CNN of a few parameters.

    What torch loads at the first step is in it, and MPI if it is started; nothing of any data set.
    """
    importlib.import_module("hpcdd.runs.pipeline")  # with all that a run imports
    with torch.random.fork_rng():
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Dropout(0.2)
        )
        classifier = nn.Sequential(nn.Flatten(), nn.Linear(8 * 4 * 4, 3))
        both = nn.Sequential(network, classifier).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make_optimizer(both, TrainingSettings())
        images = torch.rand(4, 1, 8, 8, device=device).to(memory_format=torch.channels_last)
        for _ in range(2):
            loss = functional.cross_entropy(both(images), torch.tensor([0, 1, 2, 0], device=device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return environment.resident_memory()[0]


def runtime_bytes(machine: Machine | None) -> int:
    """Bytes of a rank that is ready to train: the machine's, or those of this process, see :func:`ready_bytes`, with
    what an MPI library takes.
    """
    measured = None if machine is None else machine.runtime_bytes
    return ready_bytes("cpu") + MPI_BYTES if measured is None else measured


def _bytes(network: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def _parameters(network: nn.Module) -> int:
    """Bytes of what is trained."""
    return sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)


def _states(settings: TrainingSettings) -> int:
    """Numbers that the optimizer remembers of each parameter."""
    if settings.optimizer in ("sgd", "muon"):
        return int(settings.momentum > 0)
    return 2
