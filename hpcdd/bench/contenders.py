"""The contenders of ``bench headline``: each gives its curve of test accuracy against seconds of training.

Both are trained on the same samples with hpcdd's augmentation, layers and fused optimizers, and schedules as the
configuration says. ``problem`` has the test split in the place of a validation split.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from ..artifacts.headline_file import CurvePoint
from ..core.seeding import seed_of
from ..data.problem import Problem
from ..data.reading import BoxReader
from ..data.samples import Batches, SideBySide, Subimages
from ..models.batch_norm import pytorchs
from ..parallel.batch_shards import broadcast_state
from ..parallel.sharded_coherent import spread_dnn
from ..parallel.team import Team
from ..phases.aggregation import train_dnn
from ..phases.coherent import train_coherent
from ..phases.gather import gather_features
from ..phases.global_cnn import create_global_cnn
from ..phases.local import local_outputs, train_local_cnns, with_data
from ..runs.finalize import dnn_template
from ..training.optimizers import make_optimizer, make_schedule
from ..training.split_evaluation import evaluate
from ..training.status import Hooks
from ..training.trainer import augmentation_seed_of
from ..training.weight_average import WeightAverage
from . import single_steps
from .stopwatch import Stopwatch, slowest

Images = Mapping[str, Subimages]


class Distributed:
    """The global CNN in PyTorch's DistributedDataParallel over all ranks, as its documentation shows it.

    Its batch norm is PyTorch's. Its seconds count from here on, as those of :func:`decomposed` do: what is trained has
    to be made.

    Args:
        team: of this rank; PyTorch's process group has the same ranks.
        problem: what is to be solved.
        images: whole ones, by split.
    """

    def __init__(self, team: Team, problem: Problem, images: Images) -> None:
        self._team, self._settings, self._images = team, team.config.baseline, images
        self._watch = Stopwatch(team.workers, team.placement.device)
        self._samples = problem.samples["train"]
        self._network = pytorchs(create_global_cnn(team, problem)).to(team.placement.device)
        with_data(self._network, images["train"], team.config.seed)
        self._model = nn.parallel.DistributedDataParallel(self._network)
        self._optimizer = make_optimizer(self._model, self._settings)
        every = self._settings.epochs * self._settings.steps_per_epoch(self._samples)
        self._schedule = make_schedule(self._optimizer, self._settings, every)
        self._sharing, self._average, self._steps = team.sharing(team.workers), WeightAverage(self._settings.ema), 0

    def step(self, samples: Batches, batch: torch.Tensor) -> None:
        """One step on a batch of row numbers, int64 (b,), of which this rank takes its shard."""
        inputs, labels = samples.batch(batch[self._sharing.part_of(len(batch))])
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=self._settings.bf16):
            loss = functional.cross_entropy(self._model(inputs), labels, label_smoothing=self._settings.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
        self._steps += 1
        self._average.update(self._network, self._steps)

    def train(self) -> list[CurvePoint]:
        """Collective: all epochs."""
        images, seed, size = self._images, self._team.config.seed, self._settings.batch_of(self._samples)
        number = self._settings.steps_per_epoch(self._samples)
        points: list[CurvePoint] = []
        watch = self._watch
        for epoch in range(self._settings.epochs):
            self._network.train()
            order_seed = seed_of(seed, "global order", epoch=epoch)
            augmentation_seed = augmentation_seed_of(seed, "global", epoch)
            with images["train"].epoch(order_seed, augmentation_seed) as (order, seen):
                for batch in torch.split(order, size)[:number]:
                    self.step(seen, batch)
            seconds = watch.seconds
            with watch.stopped():
                broadcast_state(self._team.workers, self._network)  # batch norm's statistics are root's, as in DDP
                rows = self._settings.evaluation_batch
                with self._average.shown(self._network):
                    _, accuracy = evaluate(self._network, images["validation"], rows, sharing=self._sharing)
            points.append(CurvePoint(epoch=epoch + 1, seconds=seconds, accuracy=accuracy))
        return slowest(self._team.workers, points)


def decomposed(
    team: Team, problem: Problem, samples: Mapping[int, Images]
) -> tuple[list[CurvePoint], list[CurvePoint]]:
    """Collective: local phase, gather, DNN and coherent phase by transfer, as in a run.

    Args:
        team: of this rank.
        problem: what is to be solved.
        samples: by subdomain of this rank and split.

    Returns:
        The curves of the DNN and of the coherent model, which continues from it, on every rank.
    """
    config, placement, comm, num_classes = team.config, team.placement, team.workers, problem.info.num_classes
    sharing, labels = team.sharing(team.replicas), {split: problem.labels(split) for split in problem.samples}
    unwatched = {s: {"train": splits["train"]} for s, splits in samples.items()}
    watch = Stopwatch(comm, placement.device)
    width, widths = problem.widths.local_width, problem.feature_widths(config.aggregation.features)
    local = train_local_cnns(config, placement, unwatched, num_classes, width, Hooks(), sharing, evaluate=False)

    def gathered(split: str) -> dict[str, torch.Tensor]:
        outputs = [
            local_outputs(config, local[s].network, split, samples[s][split], lambda: None, sharing) for s in samples
        ]
        seen = [{split: features} for _, features in outputs]
        return gather_features(comm, team.layout, seen, {split: problem.samples[split]}, widths) or {}

    features = gathered("train")  # what the DNN learns from
    with watch.stopped():
        features |= gathered("validation")
    watch.synchronize()
    points: list[CurvePoint] = []
    dnn = train_dnn(config, features, labels, widths, num_classes, watch.hooks(points)) if comm.is_root else None
    watch.synchronize()
    part = spread_dnn(team, dnn, dnn_template(config, problem), team.reduction())
    more: list[CurvePoint] = []

    def read(subdomains: list[int]) -> Mapping[int, Images]:
        with watch.stopped():
            return problem.read(BoxReader(problem.info.path), subdomains, placement.device)

    networks = {s: result.network for s, result in local.items()}
    train_coherent(team, problem, "transfer", networks, part, samples, read, watch.hooks(more))
    return slowest(comm, points), slowest(comm, more)


def warm_up(team: Team, problem: Problem, images: Images, samples: Mapping[int, Images]) -> None:
    """Collective: a discarded step of every kind, so that no contender's seconds include what happens only once."""
    rows = problem.samples["train"]
    device, config = team.placement.device, team.config

    def batch(size: int) -> torch.Tensor:
        return single_steps.batches(rows, size, 1, device)[0]

    training = {s: splits["train"] for s, splits in samples.items()}
    with contextlib.ExitStack() as stack:
        single_steps.local(team, problem, training, stack)(batch(config.local.batch_of(rows)))
        if config.coherent.parallelism == "model":
            coherent_step = single_steps.model_parallel(team, problem, SideBySide(list(training.values())), stack)
            coherent_step(batch(config.coherent.batch_of(rows)))
        seen = single_steps.as_trained(images["train"], stack)
        Distributed(team, problem, images).step(seen, batch(config.baseline.batch_of(rows)))
