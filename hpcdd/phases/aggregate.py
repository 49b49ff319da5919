"""Aggregation: root combines the local decisions, by rules and by the DNN; the other ranks sleep.

arXiv 2302.06564 trains a dense network (DNN) that takes the local CNNs' probability distributions and gives the
global decision, and compares it with average probability and majority vote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ..config import Config
from ..data.samples import Samples
from ..models.aggregators import RULES
from ..models.dnn import DNN, create_dnn, features_of
from ..seeding import seed_of
from .training import Hooks, train

_ROWS = 8192  # samples whose scores are computed at a time


def train_dnn(
    config: Config, logits: Mapping[str, torch.Tensor], labels: Mapping[str, torch.Tensor], hooks: Hooks
) -> DNN:
    """Trains the DNN on root's processor; no messages.

    Args:
        config: the run's configuration.
        logits: by split, float32 (n, S, K).
        labels: by split, int64 (n,).
        hooks: called while it trains.

    Returns:
        The DNN, in evaluation mode.

    Raises:
        DivergedError: the loss is NaN or infinite.
        StopRequest: from ``hooks.step``.
    """
    _, num_subdomains, num_classes = logits["train"].shape
    torch.manual_seed(seed_of(config.seed, "initial DNN parameters"))
    dnn = create_dnn(config.aggregation, num_subdomains, num_classes)

    def samples(split: str) -> Samples:
        return Samples(features_of(logits[split], config.aggregation), labels[split])

    validation = samples("validation") if "validation" in logits else None
    train(dnn, samples("train"), validation, config.aggregation, seed=config.seed, phase="dnn", hooks=hooks)
    return dnn.eval()


def accuracies(config: Config, dnn: DNN, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float | list[float]]:
    """Accuracy on one split of each local CNN and of each way to combine them.

    Args:
        config: the run's configuration.
        dnn: the trained DNN.
        logits: float32 (n, S, K).
        labels: int64 (n,).

    Returns:
        ``local`` (S numbers), ``average``, ``majority``, ``log_pool`` and ``dnn``, each in [0, 1].
    """
    with torch.inference_mode():
        local = [_share(logits[:, s].argmax(1) == labels) for s in range(logits.shape[1])]
        strategies: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            **RULES,
            "dnn": lambda block: dnn(features_of(block, config.aggregation)),
        }
        combined = {
            name: _share(torch.cat([score(block).argmax(1) for block in torch.split(logits, _ROWS)]) == labels)
            for name, score in strategies.items()
        }
    return {"local": local, **combined}


def _share(hits: torch.Tensor) -> float:
    return int(hits.sum()) / len(hits)
