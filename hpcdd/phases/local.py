"""Local phase: one small CNN per subimage, trained in parallel and without messages.

arXiv 2408.14442 and 2302.06564: the images are decomposed into subimages, and for each subimage a local CNN is
trained on its own, with the labels of the whole images. A rank trains the CNNs of its subdomains one after the other,
or those of one shape batched (:mod:`hpcdd.training.trainer`). Only where several ranks (replicas) train copies
of one CNN do they exchange gradients, among themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..config.schema import Config, is_batched
from ..core.errors import DivergedError
from ..core.seeding import WHOLE, seed_of
from ..data.problem import grouped
from ..data.samples import AugmentationSeed, Subimages, channels_last
from ..decomposition.rank_layout import RankPlacement
from ..models.fast import Fast
from ..models.penultimate import logits_and_features, with_features
from ..models.registry import create
from ..parallel.batch_shards import BatchSharing, broadcast_state
from ..training.checkpoints.manager import NullCheckpointManager
from ..training.replica_checks import checked
from ..training.split_evaluation import logits_of
from ..training.status import Hooks
from ..training.trainer import Member, train, train_batched

IMAGES_SEEN = 5000
"""Training subimages from which a CNN takes what it does before its training."""


@dataclass(frozen=True)
class LocalResult:
    """One trained local CNN.

    Attributes:
        network: the CNN, on its rank's device, in evaluation mode.
        logits: its logits by split, float32 (n, K) on the CPU; empty where they are not wanted.
        features: what the DNN sees of it by split, float32 (n, F) on the CPU.
        seconds: for training and evaluation, in this job; of a batched training, an equal part.
        steps: of the training in this job.
    """

    network: nn.Module
    logits: dict[str, torch.Tensor]
    features: dict[str, torch.Tensor]
    seconds: float
    steps: int


def train_local_cnns(
    config: Config,
    placement: RankPlacement,
    samples: Mapping[int, Mapping[str, Subimages]],
    num_classes: int,
    width: int,
    hooks: Hooks,
    sharing: BatchSharing | None = None,
    managers: Callable[[int], NullCheckpointManager] = lambda _: NullCheckpointManager(),
    evaluate: bool = True,
) -> dict[int, LocalResult]:
    """Trains the CNNs of this rank's subdomains; sends and receives nothing, but for gradients between replicas.

    Args:
        config: the run's configuration.
        placement: this rank's place in the mesh.
        samples: by subdomain and split, the subimages on this rank's device.
        num_classes: K.
        width: channels of the local CNNs' first block.
        hooks: called while it trains.
        sharing: with the replicas of this rank's CNN.
        managers: makes the manager of a subdomain's checkpoints.
        evaluate: whether the logits and features of the trained CNNs are computed.

    Returns:
        One result for each subdomain of this rank, ascending.

    Raises:
        DivergedError: a loss or a logit is NaN or infinite.
        StopRequest: from ``hooks.step``, or from the flag of ``sharing``.
    """
    results: dict[int, LocalResult] = {}
    sharing = sharing or BatchSharing()
    replicas = 1 if sharing.comm is None else sharing.comm.size
    batched = trains_batched(config, placement.device, replicas)
    shapes = {s: samples[s]["train"].shape for s in placement.subdomains}
    for group in groups(shapes, batched=batched):
        start = time.perf_counter()
        members = [
            Member(
                s,
                with_data(
                    create_local_cnn(config, s, shapes[s], num_classes, width).to(placement.device),
                    samples[s]["train"],
                    config.seed,
                    s,
                ),
                samples[s]["train"],
                samples[s].get("validation"),
                managers(s),
            )
            for s in group
        ]
        steps = train_cnns(config, members, sharing, hooks, batched=batched, arithmetic=placement.arithmetic)
        seconds = (time.perf_counter() - start) / len(group)
        for member in members:
            start, s, network = time.perf_counter(), member.subdomain, member.network.eval()
            logits, features = _outputs_by_split(config, network, s, samples[s] if evaluate else {}, sharing, hooks)
            results[s] = LocalResult(network, logits, features, seconds + time.perf_counter() - start, steps[s])
    return {s: results[s] for s in placement.subdomains}


def groups(shapes: Mapping[int, tuple[int, ...]], *, batched: bool) -> list[list[int]]:
    """A rank's subdomains in the order in which their CNNs are trained: those of a list as one batch.

    Args:
        shapes: by subdomain, (C, *spatial) of its subimages.
        batched: whether CNNs of one shape are.
    """
    return grouped(shapes) if batched else [[s] for s in shapes]


def trains_batched(config: Config, device: str, replicas: int) -> bool:
    """Whether a rank trains its CNNs of one shape batched: where the settings and its device allow it.

    Replicas don't: each has one CNN, and messages in every step. Neither are CNNs of the user's own, which may draw
    random numbers that nobody knows of.
    """
    return is_batched(config.batched, device) and replicas == 1 and not config.model.has_user_factory


def train_cnns(
    config: Config,
    members: Sequence[Member],
    sharing: BatchSharing,
    hooks: Hooks,
    *,
    batched: bool,
    arithmetic: str = "",
) -> dict[int, int]:
    """Trains CNNs batched or one after the other; arguments as for :func:`train_local_cnns` and :func:`checked`.

    Returns:
        By subdomain the number of steps in this job.
    """
    if batched:
        return train_batched(members, config.local, seed=config.seed, hooks=hooks)
    return {member.subdomain: _train_one(config, member, sharing, hooks, arithmetic) for member in members}


def _train_one(config: Config, member: Member, sharing: BatchSharing, hooks: Hooks, arithmetic: str) -> int:
    """One CNN by itself, or with its replicas on other ranks; the number of steps."""
    subdomain, network = member.subdomain, member.network
    if sharing.comm is not None:
        # The same already, unless the user's own factory draws from elsewhere.
        broadcast_state(sharing.comm, network)
        hooks = checked(hooks, sharing.comm, {f"CNN {subdomain}": list(network.parameters())}, arithmetic)
    return train(
        network,
        member.training,
        member.validation,
        config.local,
        seed=config.seed,
        phase="local",
        subdomain=subdomain,
        sharing=sharing,
        hooks=hooks,
        manager=member.manager,
    )


def _outputs_by_split(
    config: Config,
    network: nn.Module,
    subdomain: int,
    samples: Mapping[str, Subimages],
    sharing: BatchSharing,
    hooks: Hooks,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A trained CNN's logits, and what the DNN sees of it, by split."""
    logits: dict[str, torch.Tensor] = {}
    features: dict[str, torch.Tensor] = {}
    with hooks.evaluation():
        for split, subimages in samples.items():
            logits[split], features[split] = local_outputs(config, network, split, subimages, hooks.step, sharing)
    if not all(bool(torch.isfinite(values).all()) for values in logits.values()):
        # The last step may have broken what the losses up to it do not show.
        raise DivergedError(
            f"phase local: the trained CNN of subdomain {subdomain} gives logits that are not finite; "
            "try a smaller local.learning_rate or local.precision fp32"
        )
    return logits, features


def with_data(network: nn.Module, training: Subimages, seed: int, subdomain: int = WHOLE) -> nn.Module:
    """Sets what a family of CNNs (:class:`hpcdd.models.fast.Fast`) takes from the training split; no message.

    It sees the first :data:`IMAGES_SEEN` samples of a random order, so of all classes in any file; large images in
    parts, so that few of them are in memory.

    Args:
        network: in place; on the samples' device.
        training: its training split.
        seed: the run's seed.
        subdomain: s, or :data:`hpcdd.core.seeding.WHOLE`.
    """
    if isinstance(network, Fast):
        order_seed = seed_of(seed, "initial data", subdomain=subdomain)
        # From its end on, so that of a stream no window is read that nobody asks for.
        with training.epoch(order_seed, AugmentationSeed(order_seed), start=len(training)) as (order, _):
            rows, each = order[:IMAGES_SEEN], network.images_at_once(training.shape)
            if each < len(rows):
                rows = rows.sort().values  # of a stream, each part is read from few chunks
            network.init_whitening(training.batch(part)[0] for part in torch.split(rows, each))
    return network


def local_outputs(
    config: Config, cnn: nn.Module, split: str, samples: Subimages, step: Callable[[], None], sharing: BatchSharing
) -> tuple[torch.Tensor, torch.Tensor]:
    """A local CNN's logits on one split, and what the DNN sees of it: float32 (n, K) and (n, F), on the CPU.

    In bf16 on the training split if the CNN was trained in it: what the DNN learns from need not be more exact than
    what the CNN has learned from.

    Args:
        config: of the run.
        cnn: the trained CNN.
        split, samples: a split and its subimages, on the CNN's device.
        step, sharing: see :func:`hpcdd.training.split_evaluation.logits_of`.
    """
    features, batch = config.aggregation.features, config.local.evaluation_batch
    with torch.autocast(samples.labels.device.type, torch.bfloat16, enabled=split == "train" and config.local.bf16):
        outputs = logits_of(with_features(cnn, features), samples, batch, step, sharing)
    return logits_and_features(cnn, outputs, features)


def create_local_cnn(
    config: Config, subdomain: int, subimage_shape: tuple[int, ...], num_classes: int, width: int
) -> nn.Module:
    """CNN_s with its initial parameters, on the CPU: the same on whichever rank it is made.

    Args:
        config: the run's configuration.
        subdomain: s.
        subimage_shape: (C, *spatial).
        num_classes: K.
        width: channels of its first block.
    """
    torch.manual_seed(seed_of(config.seed, "initial parameters", subdomain=subdomain))
    network = create(config.model, subimage_shape, num_classes, width)
    network.to(memory_format=channels_last(len(subimage_shape) - 1))  # type: ignore[call-overload]  # torch's stub lacks it
    return network
