"""Accuracies of the local CNNs, of the rules and of the DNN, from decisions that stay on the ranks that made them.

Every score is a sum over subdomains, so that a piece of samples costs one allreduce, and no rank needs memory that
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
"""Samples in a piece: a few MiB of hidden units and summands, as in a training step."""


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
    own = {s: _share_of(values.argmax(1), labels) for s, values in logits.items()}
    everyone = {s: share for of_rank in comm.allgather_object(own) for s, share in of_rank.items()}
    add = SubdomainSum(comm, "ordered")
    decisions: list[torch.Tensor] = []
    for start in range(0, len(labels), ROWS):
        pieces = [values[start : start + ROWS] for values in logits.values()]
        summands = [torch.stack([rule(piece, num_subdomains) for rule in RULES.values()]) for piece in pieces]
        decisions.append(add(summands).argmax(-1))
    decided = torch.cat(decisions, dim=1)
    return {
        "local": [everyone[s] for s in range(num_subdomains)],
        **{name: _share_of(classes, labels) for name, classes in zip(RULES, decided, strict=True)},
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
        pieces = zip(*[torch.split(output, ROWS) for output in outputs], strict=True)
        decisions = torch.cat([dnn(piece).argmax(1) for piece in pieces])
    return _share_of(decisions, labels)


def _share_of(decisions: torch.Tensor, labels: torch.Tensor) -> float:
    return int((decisions == labels).sum()) / len(labels)
