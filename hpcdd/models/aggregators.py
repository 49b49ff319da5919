"""Rules that combine the S local outputs into one prediction, without training. The first two: arXiv 2408.14442.

Each rule is a sum over the subdomains of a term that depends only on that subdomain's logits, so that ranks which
hold some subdomains each can add it up. The class with the highest score is predicted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional


def probability(logits: torch.Tensor, num_subdomains: int) -> torch.Tensor:
    """Average probability: the mean of the local probabilities."""
    return logits.double().softmax(-1) / num_subdomains


PRIOR_VOTES = 0.5
"""Votes that the average probability counts for in a majority vote."""


def vote(logits: torch.Tensor, num_subdomains: int) -> torch.Tensor:
    """Majority vote, (v_k + m p_k) / (S + m) for v_k of S votes, the average probability p and m = PRIOR_VOTES.

    That is the m-estimate of the fraction of the votes with p as prior (B. Cestnik, ECAI 1990), the posterior mean
    under a Dirichlet prior m p. The fractions themselves are 0 for classes without votes, so that one such image makes
    the log loss infinite, and they leave ties open; additive smoothing, (v_k + a) / (S + K a), leaves ties open as
    well. Since m < 1, p never outweighs a vote: the class with most votes is predicted, or, in a tie, that of them with
    the highest p.
    """
    votes = functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    return (votes + PRIOR_VOTES * probability(logits, num_subdomains)) / (num_subdomains + PRIOR_VOTES)


def log_probability(logits: torch.Tensor, num_subdomains: int) -> torch.Tensor:
    """Log-opinion pool: the mean of the local log-probabilities (the geometric mean of the probabilities)."""
    return logits.double().log_softmax(-1) / num_subdomains


UNIT = 2.0**-40
"""Unit of a score in the fixed point in which ranks add scores up (:mod:`hpcdd.parallel.subdomain_sum`)."""

Rule = Callable[[torch.Tensor, int], torch.Tensor]
RULES: dict[str, Rule] = {"average": probability, "majority": vote, "log_pool": log_probability}
"""By their names in results.json: local logits, float (..., K), and S -> the subdomain's summand, float64 (..., K)."""


def distribution(rule: str, total: torch.Tensor) -> torch.Tensor:
    """The scores of a rule (..., K) as probabilities, which add up to 1 and have the same order.

    The pool's are the normalised geometric mean; the other scores are probabilities but for the rounding of their sum.
    """
    return total.softmax(-1) if rule == "log_pool" else total / total.sum(-1, keepdim=True)


def scores(rule: Rule, logits: torch.Tensor) -> torch.Tensor:
    """The scores of a rule, float64 (n, K), from all local outputs (n, S, K).

    Summands are rounded as ranks round them: two very confident CNNs that disagree give a tie there, and so here.
    """
    return (rule(logits, logits.shape[1]) / UNIT).round().sum(1) * UNIT
