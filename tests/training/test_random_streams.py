"""Random streams of networks that one rank trains as one model: what one draws has nothing to do with the others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpcdd.core.seeding import WHOLE, seed_of
from hpcdd.training.random_streams import RandomStreams

CPU = torch.device("cpu")
X = torch.ones(4, 50)


def dropouts(*subdomains: int) -> dict[int, nn.Module]:
    return {s: nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.2)) for s in subdomains}


def drawn(
    networks: dict[int, nn.Module], order: list[int], *, epoch: int = 0, seed: int = 0, purpose: str = "dropout"
) -> dict[int, torch.Tensor]:
    """What each network gives at two steps in which they compute in some order, with other draws in between."""
    outputs: dict[int, list[torch.Tensor]] = {s: [] for s in networks}
    with RandomStreams(networks, CPU) as streams:
        streams.begin(seed, purpose, epoch)
        for step in range(2):
            for s in order if step == 0 else reversed(order):
                torch.rand(s + 2)
                outputs[s].append(networks[s](X))
    return {s: torch.stack(both) for s, both in outputs.items()}


def test_what_a_network_draws_depends_neither_on_the_others_nor_on_their_order() -> None:
    torch.manual_seed(1)
    together = drawn(dropouts(0, 1, 2, WHOLE), [0, 1, 2, WHOLE])
    torch.manual_seed(2)
    for subdomains in ([2, WHOLE, 0, 1], [1], [WHOLE, 1], [2, 0]):
        draws = drawn(dropouts(*subdomains), subdomains)
        assert all(torch.equal(draws[s], together[s]) for s in subdomains)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0], together[WHOLE])
    assert not torch.equal(together[0][0], together[0][1]), "steps go on in the stream"


def test_alone_a_network_draws_as_without_streams() -> None:
    (network,) = dropouts(3).values()
    torch.manual_seed(seed_of(7, "local dropout", subdomain=3, epoch=2))
    expected = torch.stack([network(X), network(X)])
    with RandomStreams({3: network}, CPU) as streams:
        streams.begin(7, "local dropout", 2)
        assert torch.equal(torch.stack([network(X), network(X)]), expected)


def test_streams_begin_anew_and_differ_by_epoch_seed_and_purpose() -> None:
    networks = dropouts(0, 1)
    first = drawn(networks, [0, 1])
    assert torch.equal(drawn(networks, [0, 1])[0], first[0])
    for other in ({"epoch": 1}, {"seed": 1}, {"purpose": "other"}):
        assert not torch.equal(drawn(networks, [0, 1], **other)[0], first[0])
    with RandomStreams(networks, CPU) as streams:
        for _ in range(2):
            streams.begin(0, "dropout", 0)
            assert torch.equal(networks[1](X), first[1][0])


def test_in_evaluation_mode_nothing_is_drawn_and_the_state_stays() -> None:
    networks = dropouts(0, 1)
    expected = drawn(networks, [0, 1])
    with RandomStreams(networks, CPU) as streams:
        streams.begin(0, "dropout", 0)
        first = networks[0](X)
        torch.manual_seed(5)
        before = torch.get_rng_state()
        assert torch.equal(networks[0].eval()(X), X)
        assert torch.equal(torch.get_rng_state(), before)
        networks[0].train()
        assert torch.equal(torch.stack([first, networks[0](X)]), expected[0]), "the stream goes on where it was"


@pytest.mark.parametrize("failing", [False, True])
def test_afterwards_the_networks_draw_from_the_global_state(failing: bool) -> None:
    networks = dropouts(0)
    try:
        with RandomStreams(networks, CPU) as streams:
            streams.begin(0, "dropout", 0)
            networks[0](X)
            if failing:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    torch.manual_seed(9)
    expected = nn.Dropout(0.2)(nn.Dropout(0.5)(X))
    torch.manual_seed(9)
    assert torch.equal(networks[0](X), expected)
