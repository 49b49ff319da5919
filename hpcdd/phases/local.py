"""Local phase: one small CNN per subimage, trained in parallel and without messages.

arXiv 2408.14442 and 2302.06564: the images are decomposed into subimages, and for each subimage a local CNN is
trained on its own, with the labels of the whole images. A rank trains the CNNs of its subdomains one after the other,
or those of one shape together (:mod:`hpcdd.training.trainer`). Only where several ranks (replicas) train copies
of one CNN do they exchange gradients, among themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..config.schema import Config, together_on
from ..core.errors import DivergedError
from ..core.seeding import WHOLE, seed_of
from ..data.samples import AnySamples, Subimages, ViewSeed, channels_last
from ..decomposition.rank_layout import RankPlacement
from ..models.fast import Fast
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
        logits: its decisions by split, float32 (n, K) on the CPU; empty where they are not wanted.
        seconds: for training and for the decisions, in this job; of a training together, its part.
        steps: of the training in this job.
    """

    network: nn.Module
    logits: dict[str, torch.Tensor]
    seconds: float
    steps: int


def train_local_cnns(
    config: Config,
    place: RankPlacement,
    samples: Mapping[int, Mapping[str, Subimages]],
    num_classes: int,
    width: int,
    hooks: Hooks,
    share: BatchSharing | None = None,
    managers: Callable[[int], NullCheckpointManager] = lambda _: NullCheckpointManager(),
    decide: bool = True,
) -> dict[int, LocalResult]:
    """Trains the CNNs of this rank's subdomains; sends and receives nothing, but for gradients between replicas.

    Args:
        config: the run's configuration.
        place: this rank's place in the mesh.
        samples: by subdomain and split, the subimages on this rank's device.
        num_classes: K.
        width: channels of the local CNNs' first block.
        hooks: called while it trains.
        share: with the replicas of this rank's CNN.
        managers: makes the keeper of a subdomain's checkpoints.
        decide: whether the CNNs' decisions are wanted.

    Returns:
        One result for each subdomain of this rank, ascending.

    Raises:
        DivergedError: a loss or a logit is NaN or infinite.
        StopRequest: from ``hooks.step``, or from the flag of ``share``.
    """
    results: dict[int, LocalResult] = {}
    share = share or BatchSharing()
    replicas = 1 if share.comm is None else share.comm.size
    together = trains_together(config, place.device, replicas)
    shapes = {s: samples[s]["train"].shape for s in place.subdomains}
    for group in groups(shapes, together=together):
        start = time.perf_counter()
        members = [
            Member(
                s,
                with_data(
                    create_local_cnn(config, s, shapes[s], num_classes, width).to(place.device),
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
        steps = train_cnns(config, members, share, hooks, together=together, arithmetic=place.arithmetic)
        seconds = (time.perf_counter() - start) / len(group)
        for member in members:
            start, s, network = time.perf_counter(), member.subdomain, member.network.eval()
            logits = _decisions(config, network, s, samples[s] if decide else {}, share, hooks)
            results[s] = LocalResult(network, logits, seconds + time.perf_counter() - start, steps[s])
    return {s: results[s] for s in place.subdomains}


def groups(shapes: Mapping[int, tuple[int, ...]], *, together: bool) -> list[list[int]]:
    """A rank's subdomains in the order in which their CNNs are trained: those of a list together.

    Args:
        shapes: by subdomain, (C, *spatial) of its subimages.
        together: whether CNNs of one shape are.
    """
    by_shape: dict[object, list[int]] = {}
    for s, shape in shapes.items():
        by_shape.setdefault(shape if together else s, []).append(s)
    return list(by_shape.values())


def trains_together(config: Config, device: str, replicas: int) -> bool:
    """Whether a rank trains its CNNs of one shape together: where the settings and its device let it.

    Replicas don't: each has one CNN, and messages in every step. Neither are CNNs of the user's own, which may draw
    random numbers that nobody knows of.
    """
    return together_on(config.together, device) and replicas == 1 and not config.model.is_own


def train_cnns(
    config: Config,
    members: Sequence[Member],
    share: BatchSharing,
    hooks: Hooks,
    *,
    together: bool,
    arithmetic: str = "",
) -> dict[int, int]:
    """Trains CNNs together or one after the other; arguments as for :func:`train_local_cnns` and :func:`checked`.

    Returns:
        By subdomain the number of steps in this job.
    """
    if together:
        return train_batched(members, config.local, seed=config.seed, hooks=hooks)
    return {member.subdomain: _train_alone(config, member, share, hooks, arithmetic) for member in members}


def _train_alone(config: Config, member: Member, share: BatchSharing, hooks: Hooks, arithmetic: str) -> int:
    """One CNN by itself, or with its replicas on other ranks; the number of steps."""
    subdomain, network = member.subdomain, member.network
    if share.comm is not None:
        # The same already, unless the user's own factory draws from elsewhere.
        broadcast_state(share.comm, network)
        hooks = checked(hooks, share.comm, {f"CNN {subdomain}": list(network.parameters())}, arithmetic)
    return train(
        network,
        member.training,
        member.validation,
        config.local,
        seed=config.seed,
        phase="local",
        subdomain=subdomain,
        share=share,
        hooks=hooks,
        manager=member.manager,
    )


def _decisions(
    config: Config,
    network: nn.Module,
    subdomain: int,
    samples: Mapping[str, Subimages],
    share: BatchSharing,
    hooks: Hooks,
) -> dict[str, torch.Tensor]:
    """A trained CNN's logits by split."""
    with hooks.evaluation():
        logits = {split: decided(config, network, split, its, hooks.step, share) for split, its in samples.items()}
    if not all(bool(torch.isfinite(values).all()) for values in logits.values()):
        # The last step may have broken what the losses up to it do not show.
        raise DivergedError(
            f"phase local: the trained CNN of subdomain {subdomain} gives logits that are not finite; "
            "try a smaller local.learning_rate or local.precision fp32"
        )
    return logits


def with_data(network: nn.Module, training: AnySamples, seed: int, subdomain: int = WHOLE) -> nn.Module:
    """Sets what a family of CNNs (:class:`hpcdd.models.fast.Fast`) takes from the training split; no message.

    It sees the first :data:`IMAGES_SEEN` samples of a random order, so of all classes in any file.

    Args:
        network: in place; on the samples' device.
        training: its training split.
        seed: the run's seed.
        subdomain: s, or :data:`hpcdd.core.seeding.WHOLE`.
    """
    if isinstance(network, Fast):
        order_seed = seed_of(seed, "initial data", subdomain=subdomain)
        # From its end on, so that of a stream no window is read that nobody asks for.
        with training.epoch(order_seed, ViewSeed(order_seed), start=len(training)) as (order, _):
            network.take_data(training.batch(order[:IMAGES_SEEN])[0])
    return network


def decided(
    config: Config, network: nn.Module, split: str, samples: Subimages, step: Callable[[], None], share: BatchSharing
) -> torch.Tensor:
    """A local CNN's logits on one split, see :func:`hpcdd.training.split_evaluation.logits_of`.

    In bf16 on the training split if the CNN was trained in it: what the DNN learns from need not be more exact than
    what the CNN has learned from.
    """
    with torch.autocast(samples.labels.device.type, torch.bfloat16, enabled=split == "train" and config.local.bf16):
        return logits_of(network, samples, config.local.evaluation_batch, step, share)


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
