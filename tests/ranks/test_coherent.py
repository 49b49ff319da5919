"""The coherent model on ranks against the same model in one process: outputs, gradients, and the message."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hpcdd.config.schema import Config
from hpcdd.data.problem import Problem, build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.samples import SideBySide
from hpcdd.decomposition import rank_layout
from hpcdd.models.coherent_model import CoherentModel, prepare_cnn
from hpcdd.models.dnn import DNN, create_dnn
from hpcdd.mpi.communicator import Comm
from hpcdd.parallel.batch_shards import BatchSharing, Flag
from hpcdd.parallel.gradient_averaging import GradientAverage
from hpcdd.parallel.sharded_coherent import ShardedCoherentModel, collect_dnn, spread_dnn, take_part
from hpcdd.parallel.shared_layers import shared_layers
from hpcdd.parallel.subdomain_sum import SubdomainSum, SumOverSubdomains
from hpcdd.parallel.team import Team, form_team
from hpcdd.phases.coherent import assemble, initial_part
from hpcdd.phases.evaluation import dnn_accuracy, rule_accuracies
from hpcdd.phases.local import create_local_cnn

pytestmark = pytest.mark.ranks(3, 1, 2, 6)

ROWS = 10
GRIDS = [[2, 2], [2, 3], [4, 4], [1, 2]]
FEATURES = ["logits", "probabilities", "penultimate"]


def _pose(
    comm: Comm, tiny: Path, grid: list[int], features: str, **settings: Any
) -> tuple[Config, Problem, Team | None]:
    content: dict[str, Any] = {
        "data": {"file": str(tiny)},
        "decomposition": {"grid": grid, "overlap": 1, "coarse": True},
        # The coarse subdomain makes S odd or even against the grid, so that blocks are uneven on most rank counts.
        "model": {"name": "vgg2", "width": 4, "local_width": 2, "dropout": [0.0, 0.0]},
        "aggregation": {"hidden": [7, 5], "features": "probabilities" if features == "probabilities" else "logits"},
        "coherent": {"features": features},
    }
    for section, values in settings.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    config = Config.model_validate(content)
    problem = build_problem(config)
    the_mesh = rank_layout.build(comm, len(problem.decomposition), "cpu")
    return config, problem, form_team(comm, the_mesh, config, Flag())


def _one_model(config: Config, problem: Problem) -> CoherentModel:
    """The whole model in one process, in float64, the same on every rank."""
    features, num_classes = config.coherent_features, problem.info.num_classes
    cnns = [
        create_local_cnn(config, s, problem.subimage_shape(s), num_classes, problem.widths.local_width)
        for s in range(len(problem.decomposition))
    ]
    dnn = create_dnn(config.aggregation, problem.feature_widths(features), num_classes, config.seed)
    return CoherentModel([prepare_cnn(cnn, features, 1.0) for cnn in cnns], dnn, features).double()


def _part_of(whole: CoherentModel, team: Team) -> ShardedCoherentModel:
    cnns = {s: copy.deepcopy(whole.cnns[s]) for s in team.placement.subdomains}
    return ShardedCoherentModel(cnns, take_part(whole.dnn, team.placement.subdomains, team.reduction()), whole.features)


def _batch(problem: Problem, subdomains: range | tuple[int, ...]) -> tuple[list[torch.Tensor], torch.Tensor]:
    samples = problem.read(BoxReader(problem.info.path), subdomains, "cpu")
    inputs, labels = SideBySide([splits["train"] for splits in samples.values()]).batch(slice(0, ROWS))
    return [images.double() for images in inputs], labels


def _compare(name: str, actual: torch.Tensor | None, expected: torch.Tensor | None) -> None:
    assert (actual is None) == (expected is None), name
    if actual is not None and expected is not None:
        scale = float(expected.detach().abs().max())
        assert float((actual - expected).detach().abs().max()) <= 1e-10 * max(scale, 1e-3), name


def _check_gradients(comm: Comm, tiny: Path, grid: list[int], features: str, reduction: str, *, coarse: bool) -> None:
    config, problem, team = _pose(comm, tiny, grid, features, reduction=reduction, decomposition={"coarse": coarse})
    if team is None:
        return
    whole = _one_model(config, problem).train()
    part = _part_of(whole, team).train()

    inputs, labels = _batch(problem, range(len(problem.decomposition)))
    logits = whole(inputs)
    loss = functional.cross_entropy(logits, labels)
    loss.backward()

    part_inputs, sharing = [inputs[s] for s in team.placement.subdomains], team.sharing(team.replicas)
    with (
        shared_layers(part, sharing) as context,
        GradientAverage(part, sharing, part.dnn.replicated()) as gradients,
        comm.phase("step"),
    ):
        shard = sharing.shard(torch.arange(ROWS))
        rows = shard.samples
        with context.of(shard):
            part_logits = part([images[rows] for images in part_inputs])
        (functional.cross_entropy(part_logits, labels[rows]) * shard.weight).backward()
        gradients.finish()
    _compare("logits", part_logits, logits[rows])
    for s, cnn in part.cnns.items():
        reference = dict(whole.cnns[int(s)].named_parameters())
        for name, parameter in cnn.named_parameters():
            _compare(f"{name} of CNN {s}", parameter.grad, reference[name].grad)
        buffers = dict(whole.cnns[int(s)].named_buffers())
        for name, buffer in cnn.named_buffers():  # batch norm's statistics are those of the whole batch
            _compare(f"{name} of CNN {s}", buffer.double(), buffers[name].double())
    assert whole.dnn.first.weight.grad is not None
    columns = whole.dnn.first.weight.grad.split(whole.dnn.widths, dim=1)
    for s, block in part.dnn.blocks.items():
        _compare(f"columns {s}", block.grad, columns[int(s)])
    _compare("bias", part.dnn.bias.grad, whole.dnn.first.bias.grad)
    for (name, parameter), expected in zip(part.dnn.rest.named_parameters(), whole.dnn.rest.parameters(), strict=True):
        _compare(f"rest {name}", parameter.grad, expected.grad)


# With the coarse subdomain S = 5, 7, 17 and 3: blocks of unlike size, idle ranks, replicas (S = 3 on N = 6).


@pytest.mark.parametrize("features", FEATURES)
def test_gradients_are_those_of_the_one_model(comm: Comm, tiny: Path, features: str) -> None:
    _check_gradients(comm, tiny, GRIDS[0], features, "ordered", coarse=True)


@pytest.mark.parametrize("grid", GRIDS[1:], ids=lambda grid: "x".join(map(str, grid)))
def test_gradients_of_other_grids(comm: Comm, tiny: Path, grid: list[int]) -> None:
    """On the features that are widest, of unlike widths."""
    _check_gradients(comm, tiny, grid, "penultimate", "ordered", coarse=True)


@pytest.mark.parametrize("grid", [GRIDS[0], GRIDS[-1]], ids=lambda grid: "x".join(map(str, grid)))
def test_gradients_without_a_coarse_subdomain(comm: Comm, tiny: Path, grid: list[int]) -> None:
    """S = 4; and S = 2, on N = 6 three replicas that share 10 rows unevenly."""
    _check_gradients(comm, tiny, grid, "logits", "ordered", coarse=False)


def test_gradients_by_the_fast_sum(comm: Comm, tiny: Path) -> None:
    _check_gradients(comm, tiny, GRIDS[0], "logits", "fast", coarse=True)


# -- the message -------------------------------------------------------------------------------------------------------


def test_the_sum_and_its_gradient_are_adjoint(comm: Comm) -> None:
    """<F x, y> = <x, F* y>: x lies in pieces on the ranks; F x and y are identical on all of them, and count once."""
    generator = torch.Generator().manual_seed(comm.rank)
    count = 1 + comm.rank % 2  # summands of this rank
    summands = [torch.randn(6, 5, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(count)]
    y = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    for kind in ("ordered", "fast"):
        total = SumOverSubdomains.apply(SubdomainSum(comm, kind), *summands)
        image = float((total * y).detach().sum())
        gradients = torch.autograd.grad(total, summands, y)
        here = np.array([sum(float((x * g).detach().sum()) for x, g in zip(summands, gradients, strict=True))])
        everywhere = np.zeros(1)
        comm.sum(here, everywhere)
        assert everywhere[0] == pytest.approx(image, rel=1e-10, abs=1e-10)
        assert all(torch.equal(g, y) for g in gradients)


def test_a_step_is_one_message(comm: Comm, tiny: Path) -> None:
    """One collective of batch x hidden numbers and one more, forward; none backward."""
    for features in FEATURES:
        for reduction, size in (("ordered", 8), ("fast", 4)):
            config, problem, team = _pose(comm, tiny, [2, 2], features, reduction=reduction)
            if team is None:
                continue
            part = _part_of(_one_model(config, problem).float(), team).train()
            inputs, labels = _batch(problem, team.placement.subdomains)
            with comm.phase(f"{features} {reduction}"):
                loss = functional.cross_entropy(part([images.float() for images in inputs]), labels)
                forward = copy.copy(comm.traffic[f"{features} {reduction}"])
                loss.backward()
            assert forward.calls == 1
            assert forward.bytes == 2 * size * (ROWS * 7 + 1)  # sent and received; the same for every kind of feature
            assert comm.traffic[f"{features} {reduction}"] == forward  # nothing backward


def test_the_wish_to_stop_is_seen_by_all_in_the_same_step(comm: Comm) -> None:
    """The wish of one rank is seen by all in the same step, in both kinds of message."""
    wanted = [False]
    flag = Flag(lambda: wanted[0])
    for kind in ("ordered", "fast"):
        reduction, sharing = SubdomainSum(comm, kind, flag), BatchSharing(comm, flag)
        network = nn.Linear(3, 2)
        for step in range(3):
            wanted[0] = step == 1 and comm.rank == comm.size - 1
            flag.piggybacked()
            reduction([torch.ones(2, 2)])
            assert (flag.value > 0) == (step == 1)
            flag.piggybacked()
            with GradientAverage(network, sharing) as gradients:
                network(torch.ones(1, 3)).sum().backward()
                gradients.finish()
            assert (flag.value > 0) == (step == 1)


# -- from root's parts to the ranks, and back --------------------------------------------------------------------------


def test_the_state_goes_to_the_ranks_and_back(comm: Comm, tiny: Path) -> None:
    """State goes to the distributed form and back without loss, and the outputs agree."""
    for grid, features in (([2, 2], "logits"), ([2, 3], "penultimate"), ([1, 2], "probabilities")):
        config, problem, team = _pose(comm, tiny, grid, features)
        if team is None:
            continue
        whole = _one_model(config, problem).float()
        with torch.device("meta"):
            template = DNN(whole.dnn.widths, config.aggregation.hidden, problem.info.num_classes, 0.0)
        dnn = spread_dnn(team, whole.dnn if comm.is_root else None, template, team.reduction())
        for s in team.placement.subdomains:
            assert torch.equal(dnn.blocks[str(s)], whole.dnn.block(s))
        part = ShardedCoherentModel({s: whole.cnns[s] for s in team.placement.subdomains}, dnn, features)

        back = collect_dnn(team, dnn, template)
        assert (back is not None) == comm.is_root
        if back is not None:
            _same_state(back, whole.dnn)
        again = assemble(team, problem, part)
        _same_state(again, whole)
        inputs, _ = _batch(problem, range(len(problem.decomposition)))
        images = [image.float() for image in inputs]
        expected = whole.eval()(images)
        assert torch.equal(again.eval()(images), expected)
        logits = part.eval()([images[s] for s in team.placement.subdomains])
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def _same_state(one: nn.Module, other: nn.Module) -> None:
    expected = other.state_dict()
    assert list(one.state_dict()) == list(expected)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_transfer_begins_as_what_was_trained(comm: Comm, tiny: Path) -> None:
    """CNNs and DNN as they come from their own trainings; on penultimate features the last layers are folded in."""
    config, problem, team = _pose(comm, tiny, [2, 2], "penultimate")
    if team is None:
        return
    num_classes = problem.info.num_classes
    torch.manual_seed(5)
    local = {}
    for s in range(len(problem.decomposition)):
        local[s] = create_local_cnn(config, s, problem.subimage_shape(s), num_classes, problem.widths.local_width)
        for parameter in local[s].parameters():
            nn.init.normal_(parameter, std=0.3)
    on_logits = create_dnn(config.aggregation, [num_classes] * len(local), num_classes, seed=3)
    rank_cnns = {s: local[s].eval() for s in team.placement.subdomains}
    inputs, _ = _batch(problem, range(len(local)))
    images = [image.float() for image in inputs]
    expected = CoherentModel(list(local.values()), on_logits, "logits").eval()(images)
    dnn = take_part(on_logits, team.placement.subdomains, team.reduction())
    for features in ("logits", "penultimate"):
        settings = config.coherent.model_copy(update={"features": features})
        object.__setattr__(team, "config", config.model_copy(update={"coherent": settings}))
        part = initial_part(team, problem, "transfer", rank_cnns, dnn).eval()
        logits = part([images[s] for s in team.placement.subdomains])
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_dnn_on_penultimate_features_goes_on_as_it_is(comm: Comm, tiny: Path) -> None:
    config, problem, team = _pose(comm, tiny, [2, 2], "penultimate")
    if team is None:
        return
    num_classes, width = problem.info.num_classes, problem.widths.local_width
    aggregation = config.aggregation.model_copy(update={"features": "penultimate"})
    object.__setattr__(team, "config", config.model_copy(update={"aggregation": aggregation}))
    shapes = problem.subimage_shapes
    local = {s: create_local_cnn(config, s, shape, num_classes, width).eval() for s, shape in enumerate(shapes)}
    whole = create_dnn(aggregation, problem.feature_widths("penultimate"), num_classes, seed=3)
    inputs, _ = _batch(problem, range(len(local)))
    images = [image.float() for image in inputs]
    expected = whole(torch.cat([cnn.penultimate(images[s]) for s, cnn in local.items()], dim=1))
    dnn = take_part(whole, team.placement.subdomains, team.reduction())
    part = initial_part(team, problem, "transfer", {s: local[s] for s in team.placement.subdomains}, dnn).eval()
    logits = part([images[s] for s in team.placement.subdomains])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_accuracies(comm: Comm, tiny: Path) -> None:
    _, problem, team = _pose(comm, tiny, [2, 2], "logits")
    if team is None:
        return
    count, num_classes = len(problem.decomposition), problem.info.num_classes
    labels = problem.labels("train")
    logits = torch.randn(count, len(labels), num_classes, generator=torch.Generator().manual_seed(1))
    logits = (logits * 2).round() / 2  # many ties
    rank_logits = {s: logits[s] for s in team.placement.subdomains}
    accuracies = rule_accuracies(team, rank_logits, labels)
    dnn = create_dnn(team.config.aggregation, [num_classes] * count, num_classes, seed=0)
    part = take_part(dnn, team.placement.subdomains, team.reduction())
    accuracies["dnn"] = dnn_accuracy(part, list(rank_logits.values()), labels)
    assert all(other == accuracies for other in team.workers.allgather_object(accuracies))
    alone = [float((logits[s].argmax(1) == labels).double().mean()) for s in range(count)]
    assert accuracies["local"] == alone
    probabilities = logits.double().softmax(2)
    assert accuracies["average"] == float((probabilities.mean(0).argmax(1) == labels).double().mean())
    votes = functional.one_hot(logits.argmax(2), num_classes).sum(0) + probabilities.mean(0) / 2
    assert accuracies["majority"] == float((votes.argmax(1) == labels).double().mean())
    assert accuracies["dnn"] == float((dnn(logits.transpose(0, 1).flatten(1)).argmax(1) == labels).double().mean())
