"""The rules that combine local outputs, against cases computed by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from hpcdd.models.aggregators import (
    PRIOR_VOTES,
    RULES,
    UNIT,
    Rule,
    distribution,
    log_probability,
    probability,
    scores,
    vote,
)
from hpcdd.parallel.subdomain_sum import FRACTION_BITS, from_fixed, to_fixed


def logits_of(*probabilities: list[float]) -> torch.Tensor:
    """One sample, S subdomains, each with the given probabilities of the K classes."""
    return torch.tensor([probabilities], dtype=torch.float64).log().float()


def votes(logits: torch.Tensor) -> list[list[float]]:
    """Votes for each class; the rest of a majority vote's score is less than one vote."""
    return ((logits.shape[1] + PRIOR_VOTES) * scores(vote, logits)).floor().tolist()


def prediction(rule: Rule, logits: torch.Tensor) -> list[int]:
    return scores(rule, logits).argmax(1).tolist()


def test_average_probability() -> None:
    averages = scores(probability, logits_of([0.7, 0.2, 0.1], [0.1, 0.6, 0.3]))
    torch.testing.assert_close(averages, torch.tensor([[0.4, 0.4, 0.2]], dtype=torch.float64), rtol=0, atol=1e-6)


def test_log_opinion_pool_is_the_geometric_mean() -> None:
    log_means = scores(log_probability, logits_of([0.8, 0.1, 0.1], [0.2, 0.4, 0.4]))
    expected = torch.tensor([[math.sqrt(0.16), math.sqrt(0.04), math.sqrt(0.04)]], dtype=torch.float64)
    torch.testing.assert_close(log_means.exp(), expected, rtol=0, atol=1e-6)


def test_majority_counts_votes_and_not_confidence() -> None:
    logits = logits_of([0.40, 0.35, 0.25], [0.40, 0.25, 0.35], [0.0001, 0.9998, 0.0001])
    assert prediction(vote, logits) == [0]
    assert votes(logits) == [[2, 1, 0]]
    assert prediction(probability, logits) == [1]


def test_a_tie_goes_to_the_higher_mean_probability_among_the_tied() -> None:
    # Class 2 has the highest mean probability of all, but no vote.
    first = [0.52, 0.00, 0.48]
    second = [0.00, 0.51, 0.49]
    assert prediction(vote, logits_of(first, second)) == [0]
    assert prediction(vote, logits_of(first, [0.00, 0.53, 0.47])) == [1]
    assert prediction(probability, logits_of(first, second)) == [2]


def test_a_tie_of_all() -> None:
    logits = logits_of([0.6, 0.3, 0.1], [0.1, 0.7, 0.2], [0.15, 0.05, 0.8])
    assert votes(logits) == [[1, 1, 1]]
    assert prediction(vote, logits) == [2]  # 1.1 against 1.05 and 0.85


def test_certainty_does_not_outweigh_a_vote() -> None:
    confident, unsure = [60.0, 0.0], [0.0, 1e-3]
    logits = torch.tensor([[confident, confident, unsure, unsure, unsure]])
    assert prediction(vote, logits) == [1]


@pytest.mark.parametrize("number", [1, 2, 3, 16])
def test_a_votes_probabilities_are_a_posterior_mean(number: int) -> None:
    """Under a Dirichlet prior of half a vote, spread as the average probability; compared with Monte Carlo."""
    generator = torch.Generator().manual_seed(number)
    logits = 2 * torch.randn(1, number, 4, generator=generator)
    probabilities = distribution("majority", scores(vote, logits))[0]
    counts = torch.bincount(logits.argmax(-1)[0], minlength=4)
    prior = 0.5 * logits.double().softmax(-1).mean(1)[0]
    drawn = np.random.default_rng(0).dirichlet((counts + prior).numpy(), 200_000).mean(0)
    np.testing.assert_allclose(probabilities.numpy(), drawn, atol=5e-3)


def test_a_class_without_votes_has_a_finite_log_loss() -> None:
    probabilities = distribution("majority", scores(vote, logits_of([0.9, 0.1], [0.8, 0.2])))
    torch.testing.assert_close(
        probabilities, torch.tensor([[2.425 / 2.5, 0.075 / 2.5]], dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_scores_are_means_over_the_subdomains() -> None:
    logits = 3 * torch.randn(20, 5, 4, generator=torch.Generator().manual_seed(0))
    probabilities = logits.double().softmax(-1)
    torch.testing.assert_close(scores(probability, logits), probabilities.mean(1))
    torch.testing.assert_close(scores(log_probability, logits), probabilities.log().mean(1))
    counts = torch.stack([(logits.argmax(-1) == k).sum(1) for k in range(4)], dim=1)
    torch.testing.assert_close(scores(vote, logits), (counts + probabilities.mean(1) / 2) / 5.5)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_properties_of_every_rule(rule: Rule) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 4, 5, generator=generator)
    predictions = scores(rule, logits).argmax(1)
    assert scores(rule, logits).shape == (50, 5)
    assert scores(rule, logits).dtype == torch.float64
    for order in itertools.permutations(range(4)):
        assert torch.equal(scores(rule, logits[:, list(order)]).argmax(1), predictions)
    shuffled = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(shuffled[scores(rule, logits[:, :, shuffled]).argmax(1)], predictions)
    moved = logits + 100 * torch.randn(50, 4, 1, generator=generator)
    torch.testing.assert_close(scores(rule, moved), scores(rule, logits), atol=1e-4, rtol=1e-4)
    assert torch.equal(scores(rule, logits[:, :1]).argmax(1), logits[:, 0].argmax(1))  # one subdomain: its prediction
    assert torch.equal(scores(rule, logits[:, :1].expand(-1, 4, -1)).argmax(1), logits[:, 0].argmax(1))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_subdomains_summand_depends_only_on_its_own_logits(rule: Rule) -> None:
    logits = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(0))
    summands = torch.stack([rule(logits[:, s], 3) for s in range(3)])
    torch.testing.assert_close(rule(logits, 3).transpose(0, 1), summands, rtol=1e-12, atol=0)
    torch.testing.assert_close(summands.sum(0), scores(rule, logits), rtol=0, atol=3 * UNIT)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_extreme_logits_give_finite_scores(rule: Rule) -> None:
    logits = torch.tensor([[[1e4, 0.0, -1e4], [0.0, 5.0, -1e30]]])
    assert scores(rule, logits).isfinite().all()
    assert prediction(rule, logits) == [0]


@pytest.mark.parametrize("name", RULES)
def test_scores_become_probabilities_of_the_same_order(name: str) -> None:
    logits = 5 * torch.randn(50, 4, 6, generator=torch.Generator().manual_seed(0))
    total = scores(RULES[name], logits)
    probabilities = distribution(name, total)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(50, dtype=torch.float64))
    assert bool((probabilities >= 0).all())
    assert probabilities.argsort(1).equal(total.argsort(1))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_one_process_scores_as_ranks_do(rule: Rule) -> None:
    """Also if CNNs are so confident that two classes differ by less than a unit of the fixed point."""
    assert UNIT == 2.0**-FRACTION_BITS
    logits = torch.tensor([[[0.0, 40.0, 5.0], [31.0, 0.0, 3.0]], [[1.5, 0.2, 0.1], [-1.0, 0.3, 2.0]]])
    fixed = sum(to_fixed(rule(logits[:, s], 2)) for s in range(2))
    assert torch.equal(scores(rule, logits), from_fixed(torch.as_tensor(fixed), torch.float64))
