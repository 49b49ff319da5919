"""Accuracies of the local CNNs, of the rules and of the DNN, from logits that stay on the ranks that computed them.

Every score is a sum over subdomains, so that a chunk of samples costs one allreduce, and no rank needs memory that
grows with the number of subdomains. Sums are in fixed point: the accuracies are the same on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..models.aggregators import RULES
from ..parallel.sharded_coherent import ShardedDNN
from ..parallel.subdomain_sum import SubdomainSum
from ..parallel.team import Team

ROWS = 1024
"""Samples in a chunk: a few MiB of hidden units and summands, as in a training step."""


def rule_accuracies(team: Team, logits: Mapping[int, torch.Tensor], labels: torch.Tensor) -> dict[str, Any]:
    """Collective over the workers.

    Args:
        team: of this rank.
        logits: by subdomain of this rank, its class logits, float32 (n, K).
        labels: int64 (n,).

    Returns:
        ``local`` (S numbers), ``average``, ``majority`` and ``log_pool``, each in [0, 1]; on every worker.
    """
    num_subdomains, comm = team.layout.num_subdomains, team.across
    rank_accuracies = {s: _accuracy(values.argmax(1), labels) for s, values in logits.items()}
    everyone = {s: accuracy for of_rank in comm.allgather_object(rank_accuracies) for s, accuracy in of_rank.items()}
    add = SubdomainSum(comm, "ordered")
    predictions: list[torch.Tensor] = []
    for start in range(0, len(labels), ROWS):
        chunks = [values[start : start + ROWS] for values in logits.values()]
        summands = [torch.stack([rule(chunk, num_subdomains) for rule in RULES.values()]) for chunk in chunks]
        predictions.append(add(summands).argmax(-1))
    by_rule = torch.cat(predictions, dim=1)
    return {
        "local": [everyone[s] for s in range(num_subdomains)],
        **{name: _accuracy(classes, labels) for name, classes in zip(RULES, by_rule, strict=True)},
    }


def dnn_accuracy(dnn: ShardedDNN, outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> float:
    """Collective over the workers.

    Args:
        dnn: this rank's part, on the CPU.
        outputs: what the DNN sees of each of this rank's CNNs, float32 (n, F), ascending by subdomain.
        labels: int64 (n,).

    Returns:
        Accuracy in [0, 1], on every worker.
    """
    dnn.eval()
    with torch.inference_mode():
        chunks = zip(*[torch.split(output, ROWS) for output in outputs], strict=True)
        predictions = torch.cat([dnn(chunk).argmax(1) for chunk in chunks])
    return _accuracy(predictions, labels)


def _accuracy(predictions: torch.Tensor, labels: torch.Tensor) -> float:
    return int((predictions == labels).sum()) / len(labels)
