"""Rules that combine the S local decisions into one, without training: arXiv 2408.14442 compares the first two.

All take logits, float (n, S, K), and give scores, float64 (n, K): the class with the highest score is the decision.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def average_probability(logits: torch.Tensor) -> torch.Tensor:
    """Mean over the subdomains of the local probabilities."""
    return logits.double().softmax(2).mean(1)


def majority_vote(logits: torch.Tensor) -> torch.Tensor:
    """Votes of the local CNNs for each class; between classes with equally many, the higher mean probability wins."""
    votes = functional.one_hot(logits.argmax(2), logits.shape[2]).sum(1)
    return votes + 0.5 * average_probability(logits)  # half of a probability never outweighs a vote


def log_opinion_pool(logits: torch.Tensor) -> torch.Tensor:
    """Mean over the subdomains of the local log-probabilities (the geometric mean of the probabilities)."""
    return logits.double().log_softmax(2).mean(1)


RULES = {"average": average_probability, "majority": majority_vote, "log_pool": log_opinion_pool}
"""The rules by their names in results.json."""
