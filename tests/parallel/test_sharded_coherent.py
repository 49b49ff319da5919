"""One rank's part of the coherent model, where that rank has all of it: the same numbers as the one-process form."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpcdd.config.schema import Config
from hpcdd.decomposition import rank_layout
from hpcdd.models.coherent_model import CoherentModel, prepare_cnn
from hpcdd.models.dnn import DNN
from hpcdd.models.fast import Fast
from hpcdd.models.penultimate import Penultimate
from hpcdd.models.resnet import ResNet
from hpcdd.models.vgg import VGG
from hpcdd.mpi import communicator
from hpcdd.parallel.batch_shards import Flag
from hpcdd.parallel.sharded_coherent import (
    ShardedCoherentModel,
    ShardedDNN,
    checksum,
    collect_dnn,
    onto_penultimate,
    pool,
    spread_dnn,
    take_part,
)
from hpcdd.parallel.subdomain_sum import SubdomainSum
from hpcdd.parallel.team import Team, form_team

WIDTHS = [3, 4, 2]
SHAPE = (1, 4, 4)


def reduction() -> SubdomainSum:
    return SubdomainSum(communicator.world(), "ordered")


def dnn_of(widths: list[int], hidden: tuple[int, ...] = (7, 5)) -> DNN:
    torch.manual_seed(0)
    return DNN(widths, hidden, 3, 0.0).double()


def close(actual: torch.Tensor | None, expected: torch.Tensor | None) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("hidden", [(), (6,), (7, 5)], ids=str)
@pytest.mark.parametrize("widths", [WIDTHS, [4], [2] * 12], ids=str)
def test_a_part_of_all_subdomains_computes_what_the_dnn_does(widths: list[int], hidden: tuple[int, ...]) -> None:
    dnn, generator = dnn_of(widths, hidden), torch.Generator().manual_seed(1)
    part = take_part(dnn, range(len(widths)), reduction())
    outputs = [torch.randn(6, width, dtype=torch.float64, generator=generator) for width in widths]
    mine, theirs = ([output.clone().requires_grad_() for output in outputs] for _ in range(2))
    logits, expected = part(mine), dnn(torch.cat(theirs, dim=1))
    close(logits, expected)
    labels = torch.arange(6) % 3
    functional.cross_entropy(logits, labels).backward()
    functional.cross_entropy(expected, labels).backward()
    columns = dnn.first.weight.grad.split(widths, dim=1)
    for s, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        close(one.grad, other.grad)
        close(part.blocks[str(s)].grad, columns[s])
    close(part.bias.grad, dnn.first.bias.grad)
    for one, other in zip(part.rest.parameters(), dnn.rest.parameters(), strict=True):
        close(one.grad, other.grad)


def test_a_part_that_is_taken_has_parameters_of_its_own() -> None:
    dnn = dnn_of(WIDTHS)
    part, state = take_part(dnn, [2, 0], reduction()), copy.deepcopy(dnn.state_dict())
    assert list(part.blocks) == ["2", "0"]
    for parameter in part.parameters():
        nn.init.zeros_(parameter)
    assert all(torch.equal(dnn.state_dict()[name], state[name]) for name in state)


def test_what_all_ranks_have_a_copy_of() -> None:
    part = take_part(dnn_of(WIDTHS), [1], reduction())
    replicated = {id(p) for p in part.replicated()}
    assert {name for name, p in part.named_parameters() if id(p) not in replicated} == {"blocks.1"}


def test_a_copy_has_parameters_of_its_own_and_computes_the_same() -> None:
    part = take_part(dnn_of(WIDTHS), [0, 1, 2], reduction())
    outputs = [torch.randn(2, width, dtype=torch.float64) for width in WIDTHS]
    made, before = part.copy(), part(outputs)
    assert torch.equal(made(outputs), before)
    assert made.state_dict().keys() == part.state_dict().keys()
    for parameter in made.parameters():
        assert parameter.requires_grad
        nn.init.zeros_(parameter)
    assert torch.equal(part(outputs), before)
    assert not made(outputs).any()


def cnns_without_last_layer(bias: bool = True) -> dict[int, Penultimate]:
    torch.manual_seed(0)
    networks: list[nn.Module] = [
        VGG(1, SHAPE, 3, 4, (0.0, 0.0)),
        ResNet(1, SHAPE, 3, 2),
        VGG(2, SHAPE, 3, 3, (0.0, 0.0)),
    ]
    if not bias:
        networks[1].classifier = nn.Linear(8, 3, bias=False)
    return {s: Penultimate(network.double().eval()) for s, network in enumerate(networks)}


def function_of(part: ShardedDNN, cnns: dict[int, Penultimate], images: torch.Tensor, features: str) -> torch.Tensor:
    if features == "penultimate":
        return part([cnn(images) for cnn in cnns.values()])
    logits = [cnn.cnn(images) for cnn in cnns.values()]
    return part([values.softmax(1) for values in logits] if features == "probabilities" else logits)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("hidden", [(), (7, 5)], ids=str)
def test_a_dnn_on_logits_becomes_one_on_penultimate_features(hidden: tuple[int, ...], bias: bool) -> None:
    cnns, images = cnns_without_last_layer(bias), torch.randn(8, *SHAPE, dtype=torch.float64)
    part = take_part(dnn_of([3, 3, 3], hidden), cnns, reduction())
    before = copy.deepcopy(part.state_dict())
    moved = onto_penultimate(part, cnns, reduction())
    assert [tuple(block.shape) for block in moved.blocks.values()] == [(7 if hidden else 3, n) for n in (4, 8, 6)]
    logits = function_of(moved, cnns, images, "penultimate")
    close(logits, function_of(part, cnns, images, "logits"))
    # Of a DNN on probabilities it is not the same function: they are not linear in the features.
    assert (logits - function_of(part, cnns, images, "probabilities")).abs().max() > 1e-3

    for parameter in moved.parameters():
        nn.init.zeros_(parameter)
    assert all(torch.equal(part.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("features", ["logits", "probabilities", "penultimate"])
def test_a_part_of_all_cnns_computes_what_the_coherent_model_does(features: str) -> None:
    torch.manual_seed(0)
    networks = [VGG(1, SHAPE, 3, 4, (0.0, 0.0)) for _ in range(12)]  # "10" does not come before "2"
    cnns = [prepare_cnn(network.double(), features, 1.0) for network in networks]
    dnn = dnn_of([4 if features == "penultimate" else 3] * 12)
    whole = CoherentModel(copy.deepcopy(cnns), dnn, features)
    part = ShardedCoherentModel(dict(enumerate(cnns)), take_part(dnn, range(12), reduction()), features)
    images = list(torch.randn(12, 5, *SHAPE, dtype=torch.float64))
    for network in (whole.train(), part.train()):
        network(images)  # batch norms see data
    close(part.eval()(images), whole.eval()(images))
    assert list(part.local_cnns()) == list(range(12))
    assert all(part.local_cnns()[s] is network for s, network in enumerate(networks))


def team_of_one_rank(subdomains: int) -> Team:
    comm = communicator.world()
    team = form_team(comm, rank_layout.build(comm, subdomains, "cpu"), Config(), Flag())
    assert team is not None
    return team


@pytest.mark.parametrize("hidden", [(), (7, 5)], ids=str)
@pytest.mark.parametrize("widths", [WIDTHS, [3] * 12], ids=["3", "12"])
def test_spread_and_collected_a_dnn_has_the_same_bits(widths: list[int], hidden: tuple[int, ...]) -> None:
    team, dnn = team_of_one_rank(len(widths)), dnn_of(widths, hidden).float()
    with torch.device("meta"):
        template = DNN(widths, hidden, 3, 0.0)
    part = spread_dnn(team, dnn, template, team.reduction())
    assert list(part.blocks) == [str(s) for s in range(len(widths))]
    assert all(torch.equal(part.blocks[str(s)], dnn.block(s)) for s in range(len(widths)))
    collected = collect_dnn(team, part, template)
    assert collected is not None
    assert not collected.training
    assert collected.widths == dnn.widths
    assert collected.state_dict().keys() == dnn.state_dict().keys()
    assert all(torch.equal(collected.state_dict()[name], tensor) for name, tensor in dnn.state_dict().items())
    assert all(parameter.is_meta for parameter in template.parameters())


def test_the_team_of_one_rank() -> None:
    team = team_of_one_rank(3)
    assert team.placement.subdomains == (0, 1, 2)
    assert [comm.size for comm in (team.workers, team.across, team.replicas)] == [1, 1, 1]
    assert team.sharing(team.replicas).comm is team.sharing(team.workers).comm is None
    assert team.sharing(team.workers).flag is team.flag


def test_a_checksum_tells_bits_order_and_nothing_else() -> None:
    one, other = torch.randn(4, 3), torch.randn(5)
    value = checksum([one, other])
    assert checksum([one.clone().requires_grad_(), other]) == value
    assert checksum([one.t().contiguous().t(), other]) == value  # it lies otherwise in memory
    assert checksum([one.flatten(), other]) == value
    assert checksum([other, one]) != value
    changed = one.clone()
    changed.view(torch.int32)[2, 1] ^= 1
    assert checksum([changed, other]) != value
    assert checksum([torch.zeros(3)]) != checksum([-torch.zeros(3)])
    assert checksum([]) == 0


@pytest.mark.parametrize("features", ["logits", "penultimate"])
def test_the_pool_starts_as_the_mean_of_the_local_logits(features: str) -> None:
    torch.manual_seed(0)
    images = [torch.randn(5, 1, 6, 6) for _ in range(3)]
    cnns = {s: Fast((1, 6, 6), 4, 3, (1, 2)).eval() for s in range(3)}
    expected = torch.stack([cnn(x) for cnn, x in zip(cnns.values(), images, strict=True)]).mean(0)
    parts = {s: prepare_cnn(cnn, features, 1.0) for s, cnn in cnns.items()}
    dnn = pool(parts, 3, 4, reduction())
    if features == "penultimate":
        dnn = onto_penultimate(dnn, {s: c for s, c in parts.items() if isinstance(c, Penultimate)}, reduction())
    logits = ShardedCoherentModel(parts, dnn, features).eval()(images)
    torch.testing.assert_close(logits, expected)
    assert all(p.requires_grad for p in dnn.parameters())
