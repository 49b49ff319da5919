"""A whole run as a good engineer writes it by hand, with torch, h5py and mpi4py, for one kind of configuration.

The file is read once on each rank; its images are cut into boxes by numpy and kept normalised, float32 and channels
last. There is no DataLoader, the loss is summed without reading it, the optimizer is the fused one, dropout is torch's.
The CNNs, their initial parameters, the splits, batch sizes, epochs and schedules are those of the configuration. There
are no checkpoints, no records and no progress; a validation split is watched at the end of every epoch, and the test
split is evaluated at the end of all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..config.schema import Config, TrainingSettings
from ..core.names import PhaseName
from ..data.problem import Problem
from ..data.samples import channels_last
from ..models.dnn import DNN, create_dnn, features_of
from ..models.random_modules import scale_dropout
from ..phases.local import create_local_cnn
from ..training.optimizers import make_optimizer, make_schedule
from .plain_loop import use_torch_layers

if TYPE_CHECKING:
    from mpi4py import MPI

Splits = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class PlainOutcome:
    """The result of a run, on this rank.

    Attributes:
        seconds: by phase, with the names that hpcdd's phases have; each phase ends with a barrier.
        accuracy: on the test split, of the ``dnn`` (on root; nan elsewhere) and of ``coherent_transfer``.
    """

    seconds: dict[str, float]
    accuracy: dict[str, float]


def train(mpi: MPI.Comm, config: Config, problem: Problem, owned: Sequence[Sequence[int]]) -> PlainOutcome:
    """Collective: local CNNs, DNN on root, coherent model by transfer.

    Args:
        mpi: the ranks.
        config: of the run.
        problem: data set, splits and boxes.
        owned: the subdomains of every rank, in rank order.
    """
    rank, subdomains, seconds = mpi.Get_rank(), owned[mpi.Get_rank()], dict[str, float]()
    num_classes, size = problem.info.num_classes, len(problem.decomposition)

    @contextlib.contextmanager
    def phase(name: PhaseName) -> Iterator[None]:
        start = time.perf_counter()
        yield
        mpi.Barrier()
        seconds[name] = time.perf_counter() - start

    with phase("read"):
        images = _read(problem, subdomains)
        labels = {split: problem.labels(split) for split in problem.rows}

    cnns: dict[int, nn.Module] = {}
    logits: dict[int, Splits] = {}
    with phase("local"):
        for s in subdomains:
            shape, width = problem.subimage_shape(s), problem.widths.local_width
            cnns[s] = create_local_cnn(config, s, shape, num_classes, width)
            use_torch_layers(cnns[s])
            _fit(cnns[s], {split: [x] for split, x in images[s].items()}, labels, config.local, config.seed + s)
            logits[s] = {split: _logits(cnns[s], [x], config.local) for split, x in images[s].items()}

    with phase("gather"):
        features = {
            split: _gather(mpi, [logits[s][split] for s in subdomains], [len(of_rank) for of_rank in owned], config)
            for split in labels
        }

    dnn, accuracy = create_dnn(config.aggregation, [num_classes] * size, num_classes, config.seed), {"dnn": np.nan}
    with phase("dnn"):
        if rank == 0:
            _fit(dnn, {split: [x] for split, x in features.items()}, labels, config.aggregation, config.seed)
            accuracy["dnn"] = _accuracy(_logits(dnn, [features["test"]], config.aggregation), labels["test"])
        dnn.load_state_dict(mpi.bcast(dnn.state_dict() if rank == 0 else None))

    with phase("coherent_transfer"):
        model = _Coherent(mpi, cnns, dnn, config)
        inputs = {split: [images[s][split] for s in subdomains] for split in labels}
        _fit(model, inputs, labels, config.coherent_from("transfer"), config.seed)

    with phase("evaluation"):
        accuracy["coherent_transfer"] = _accuracy(_logits(model, inputs["test"], config.coherent), labels["test"])
    return PlainOutcome(seconds, accuracy)


def _read(problem: Problem, subdomains: Sequence[int]) -> dict[int, dict[str, torch.Tensor]]:
    """By subdomain and split, float32 (n, C, *box), normalised and channels last."""
    axes = len(problem.decomposition.image)
    mean, std = (np.asarray(v, np.float32).reshape(-1, *[1] * axes) for v in (problem.info.mean, problem.info.std))
    form: Any = channels_last(axes)
    images: dict[int, dict[str, torch.Tensor]] = {s: {} for s in subdomains}
    with h5py.File(problem.info.path, "r", locking=False) as file:
        stored = {name: file[f"{name}/images"][:] for name in {name for name, _ in problem.rows.values()}}
    for split, (name, rows) in problem.rows.items():
        whole = stored[name] if rows is None else stored[name][rows]
        for s in subdomains:
            pixels = whole[:, :, *problem.decomposition.boxes[s].slices].astype(np.float32)
            images[s][split] = torch.from_numpy((pixels - mean) / std).contiguous(memory_format=form)
    return images


def _fit(
    network: nn.Module,
    inputs: Mapping[str, Sequence[torch.Tensor]],
    labels: Splits,
    settings: TrainingSettings,
    seed: int,
) -> None:
    """Trains on the split ``train``, and watches ``validation`` where there is one."""
    training, targets = inputs["train"], labels["train"]
    size, steps = settings.batch_of(len(targets)), settings.steps_per_epoch(len(targets))
    optimizer = make_optimizer(network, settings)
    schedule = make_schedule(optimizer, settings, steps * settings.epochs)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        network.train()
        total = torch.zeros(())
        for batch in torch.split(torch.randperm(len(targets), generator=generator), size)[:steps]:
            loss = functional.cross_entropy(network(*[x.index_select(0, batch) for x in training]), targets[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.detach()
        if not torch.isfinite(total):
            raise ArithmeticError(f"the loss of the plain script is {float(total)}")
        if "validation" in labels:
            _accuracy(_logits(network, inputs["validation"], settings), labels["validation"])


def _logits(network: nn.Module, inputs: Sequence[torch.Tensor], settings: TrainingSettings) -> torch.Tensor:
    network.eval()
    with torch.inference_mode():
        batches = zip(*[torch.split(x, settings.evaluation_batch) for x in inputs], strict=True)
        return torch.cat([network(*batch) for batch in batches])


def _accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())


def _gather(mpi: MPI.Comm, logits: Sequence[torch.Tensor], counts: Sequence[int], config: Config) -> torch.Tensor:
    """What the DNN sees, float32 (n, S x K), on root; elsewhere nothing, (0,).

    Args:
        mpi: the ranks.
        logits: of this rank's CNNs, float32 (n, K).
        counts: CNNs of every rank.
        config: of the run.
    """
    stacked = torch.stack(list(logits))
    if mpi.Get_rank():
        mpi.Gatherv(stacked.numpy(), None)
        return torch.empty(0)
    whole = torch.empty(sum(counts), *stacked.shape[1:])
    mpi.Gatherv(stacked.numpy(), [whole.numpy(), [n * stacked[0].numel() for n in counts]])
    return features_of(whole, config.aggregation.features).transpose(0, 1).flatten(1)


class _Coherent(nn.Module):
    """This rank's CNNs and their columns of the DNN's first layer; the layers behind it are on every rank.

    Args:
        mpi: the ranks.
        cnns: trained ones, by subdomain of this rank.
        dnn: trained.
        config: of the run.
    """

    def __init__(self, mpi: MPI.Comm, cnns: Mapping[int, nn.Module], dnn: DNN, config: Config) -> None:
        super().__init__()
        self.mpi, self.features = mpi, config.coherent_features
        self.cnns = nn.ModuleList(cnns.values())
        self.columns = nn.ParameterList([dnn.block(s).detach().clone() for s in cnns])
        self.bias, self.rest = nn.Parameter(dnn.first.bias.detach().clone()), dnn.rest
        scale_dropout(self.cnns, config.coherent.dropout_scale)

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        """This rank's subimages, float (n, C, *box) each -> logits (n, K) on every rank."""
        seen = [features_of(cnn(x), self.features) for cnn, x in zip(self.cnns, images, strict=True)]
        summand = torch.stack([functional.linear(z, w) for z, w in zip(seen, self.columns, strict=True)]).sum(0)
        hidden: torch.Tensor = _SumOverRanks.apply(summand, self.mpi)  # type: ignore[no-untyped-call]
        logits: torch.Tensor = self.rest(hidden + self.bias)
        return logits


class _SumOverRanks(torch.autograd.Function):
    """All ranks' summands (batch, hidden) added up on every rank; what comes behind is identical on all of them."""

    @staticmethod
    def forward(_: Any, summand: torch.Tensor, mpi: MPI.Comm) -> torch.Tensor:
        """One message."""
        total = torch.empty_like(summand)
        mpi.Allreduce(summand.numpy(), total.numpy())
        return total

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """No message: the gradient of the sum is the same on every rank."""
        return gradient, None
