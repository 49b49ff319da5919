"""Batch norm and dropout of shared batches against torch's own on whole batches."""

from __future__ import annotations

import contextlib
import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpcdd.models.batch_context import BatchContext
from hpcdd.models.batch_norm import BatchNorm, accurate
from hpcdd.models.layers import Dropout
from hpcdd.parallel.batch_shards import BatchSharing
from hpcdd.parallel.shared_layers import SharedDropout, shared_layers

from ..thread_ranks import ThreadComm, on_ranks

NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
FORMATS = {"as stored": torch.contiguous_format, "channels last": torch.channels_last}
SHAPES = [(7, 3), (7, 3, 5), (7, 3, 4, 2), (7, 3, 2, 3, 2)]


def norm_of(shape: tuple[int, ...], **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    norm = NORMS[len(shape)](shape[1], **settings).double()
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0)
    return norm


def batch(shape: tuple[int, ...], seed: int, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return offset + torch.randn(shape, dtype=torch.float64, generator=generator)


def close(actual: torch.Tensor | None, expected: torch.Tensor | None, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def passes(
    norm: nn.Module, sharing: BatchSharing, batches: list[torch.Tensor], slopes: list[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Outputs and gradients of this rank's rows for some batches; the parameters' gradients add up in ``norm``."""
    outputs, gradients = [], []
    for whole, slope in zip(batches, slopes, strict=True):
        shard = sharing.shard(torch.arange(len(whole)))
        x = whole[shard.rows].requires_grad_()
        with shared_layers(norm, sharing) as context, context.of(shard):
            y = norm(x)
            y.backward(slope[shard.rows])
        outputs.append(y.detach())
        gradients.append(x.grad)
    return outputs, gradients


def check_norm(
    norm: nn.Module, batches: list[torch.Tensor], slopes: list[torch.Tensor], ranks: int, tolerance: float = 1e-12
) -> None:
    reference = copy.deepcopy(norm)
    expected, expected_gradients = passes(reference, BatchSharing(), batches, slopes)

    def work(comm: ThreadComm) -> tuple[nn.Module, list[torch.Tensor], list[torch.Tensor], int]:
        sharing = BatchSharing(comm)
        replica = copy.deepcopy(norm)
        return (replica, *passes(replica, sharing, batches, slopes), comm.calls)

    results = on_ranks(ranks, work)
    for step in range(len(batches)):
        close(torch.cat([outputs[step] for _, outputs, _, _ in results]), expected[step], tolerance)
        close(torch.cat([gradients[step] for _, _, gradients, _ in results]), expected_gradients[step], tolerance)
    of_ranks = zip(*[replica.parameters() for replica, *_ in results], strict=True)
    for mine, theirs in zip(of_ranks, reference.parameters(), strict=True):
        close(sum(p.grad for p in mine), theirs.grad, tolerance)  # the ranks' rows' parts of it
    for replica, _, _, calls in results:
        assert replica.state_dict().keys() == reference.state_dict().keys()
        for name, buffer in reference.named_buffers():
            close(replica.get_buffer(name), buffer, tolerance)
        assert calls == 2 * len(batches)  # one forward, one backward
        close(replica.eval()(batches[0]), copy.deepcopy(reference).eval()(batches[0]), tolerance)


@pytest.mark.parametrize("ranks", [2, 3, 7], ids=lambda n: f"{n} ranks")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_norm_over_all_rows(shape: tuple[int, ...], ranks: int) -> None:
    """Seven rows on two and three ranks are uneven shares, on seven ranks one row each."""
    batches, slopes = [batch(shape, i, offset=i) for i in range(3)], [batch(shape, 10 + i) for i in range(3)]
    check_norm(norm_of(shape), batches, slopes, ranks)


@pytest.mark.parametrize(
    "settings", [{"momentum": None}, {"momentum": 0.5, "eps": 0.1}, {"track_running_stats": False}]
)
def test_batch_norm_with_other_settings(settings: dict[str, Any]) -> None:
    shape = (6, 3, 2, 2)
    norm = norm_of(shape, **settings)
    batches, slopes = [batch(shape, i) for i in range(3)], [batch(shape, 10 + i) for i in range(3)]
    check_norm(norm, batches, slopes, 3)


def test_batch_norm_has_the_same_bits_where_messages_are_sent_from_where_the_numbers_are() -> None:
    shape = (7, 3, 4, 2)
    norm, x, slope = norm_of(shape), batch(shape, 0), batch(shape, 1)

    def work(direct: bool, comm: ThreadComm) -> list[torch.Tensor]:
        sharing = BatchSharing(comm, direct=direct)
        replica = copy.deepcopy(norm)
        outputs, gradients = passes(replica, sharing, [x], [slope])
        return [*outputs, *gradients, *replica.buffers()]

    for actual, expected in zip(*[on_ranks(3, partial(work, direct)) for direct in (True, False)], strict=True):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(actual, expected, strict=True))


def test_batch_norm_of_images_that_lie_channels_last() -> None:
    shape = (7, 3, 4, 2)
    batches = [batch(shape, 0).to(memory_format=torch.channels_last)]
    slopes = [batch(shape, 1).to(memory_format=torch.channels_last)]
    check_norm(norm_of(shape), batches, slopes, 3)


def test_batch_norm_of_values_far_from_zero_loses_nothing() -> None:
    """The variance is not a difference of large numbers; ranks whose rows lie far apart are the hard case."""
    shape = (6, 2, 3, 3)
    far = batch(shape, 0, offset=1e6)
    far[:3] += 1e4
    check_norm(norm_of(shape), [far], [batch(shape, 1)], 2, tolerance=1e-9)


def test_batch_norm_in_float32_is_as_good_as_torchs() -> None:
    shape = (8, 5, 6, 6)
    norm, slope = norm_of(shape), batch(shape, 1)
    exact = batch(shape, 0, offset=3.0).requires_grad_()
    copy.deepcopy(norm)(exact).backward(slope)

    def work(comm: ThreadComm) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        sharing = BatchSharing(comm)
        replica = copy.deepcopy(norm).float()
        return passes(replica, sharing, [exact.detach().float()], [slope.float()])

    results = on_ranks(2, work)
    output, gradient = (torch.cat([tensors[0] for tensors in of_ranks]) for of_ranks in zip(*results, strict=True))
    assert output.dtype == gradient.dtype == torch.float32
    close(output.double(), norm(exact), 1e-5)
    close(gradient.double(), exact.grad, 1e-5)


@pytest.mark.parametrize("absent", [["bias"], ["weight", "bias"]], ids=str)
def test_batch_norm_without_weight_or_bias(absent: list[str]) -> None:
    shape = (5, 3, 2, 2)
    norm = norm_of(shape)
    for name in absent:
        norm.register_parameter(name, None)
    check_norm(norm, [batch(shape, 0)], [batch(shape, 1)], 2)


def test_batch_norm_in_mixed_precision_takes_its_sums_in_float32() -> None:
    shape = (8, 5, 6, 6)
    norm = norm_of(shape).float()
    x, slope = batch(shape, 0, offset=3.0).bfloat16(), batch(shape, 1).bfloat16()
    reference = copy.deepcopy(norm)
    (expected,), (expected_gradient,) = passes(reference, BatchSharing(), [x], [slope])

    def work(comm: ThreadComm) -> tuple[nn.Module, list[torch.Tensor], list[torch.Tensor]]:
        sharing = BatchSharing(comm)
        replica = copy.deepcopy(norm)
        return (replica, *passes(replica, sharing, [x], [slope]))

    results = on_ranks(2, work)
    close(torch.cat([outputs[0] for _, outputs, _ in results]), expected, 1e-2)
    close(torch.cat([gradients[0] for _, _, gradients in results]), expected_gradient, 1e-2)
    for replica, outputs, gradients in results:
        assert {tensor.dtype for tensor in (*outputs, *gradients)} == {torch.bfloat16}
        close(replica.running_mean, reference.running_mean, 1e-5)
        close(replica.running_var, reference.running_var, 1e-5)


KINDS = [Dropout, nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout]


@pytest.mark.filterwarnings("ignore:dropout[23]d. Received:UserWarning")  # torch takes inputs of any rank as yet
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 3, 7], ids=lambda n: f"{n} ranks")
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
@pytest.mark.parametrize(
    ("shape", "memory"),
    [
        *[(shape, torch.contiguous_format) for shape in SHAPES],
        ((7, 3, 4, 2), torch.channels_last),
        ((7, 3, 2, 3, 2), torch.channels_last_3d),
    ],
    ids=str,
)
def test_dropout_masks_are_rows_of_the_whole_batchs(
    shape: tuple[int, ...], memory: torch.memory_format, p: float, ranks: int, kind: type[nn.Dropout]
) -> None:
    x, slope = batch(shape, 0).float().to(memory_format=memory), batch(shape, 1).float()

    def dropped(layer: nn.Module, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        inputs = x[rows].clone(memory_format=torch.preserve_format).requires_grad_()
        torch.manual_seed(5)
        first, second = layer(inputs), layer(inputs)
        (first + second).backward(slope[rows])
        return first.detach(), second.detach(), inputs.grad

    expected = dropped(kind(p), torch.arange(7))
    for rank in range(ranks):
        context, sharing = BatchContext(), BatchSharing(ThreadComm(rank, ranks, None, []))  # type: ignore[arg-type]
        shard = sharing.shard(torch.arange(7))
        rows = shard.samples
        with context.of(shard):
            actual = dropped(SharedDropout(kind(p), context), rows)
        assert all(torch.equal(mine, whole[rows]) for mine, whole in zip(actual, expected, strict=True))
    if p:
        assert not torch.equal(expected[0], expected[1])


def test_dropout_in_place_changes_its_input() -> None:
    context, sharing = BatchContext(), BatchSharing(ThreadComm(1, 2, None, []))  # type: ignore[arg-type]
    shard = sharing.shard(torch.arange(7))
    x = batch((7, 300), 0)[shard.rows]
    with context.of(shard):
        y = SharedDropout(nn.Dropout(0.5, inplace=True), context)(x)
    assert y is x
    assert 0.3 < float((x == 0).double().mean()) < 0.7


def test_dropout_does_nothing_in_evaluation_mode() -> None:
    x, before = batch((7, 3), 0), torch.get_rng_state()
    context = BatchContext()
    with context.of(BatchSharing().shard(torch.arange(7))):
        assert SharedDropout(nn.Dropout(0.5), context).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), before)


class Nested(nn.Module):
    """Layers to be replaced at several depths and layers to be left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.25), nn.ModuleDict({"deep": nn.BatchNorm2d(2)}))
        self.group = nn.GroupNorm(1, 4)


def modules(network: nn.Module) -> dict[str, nn.Module]:
    return dict(network.named_modules())


def test_layers_are_shared_inside_the_block_and_torchs_again_after_it() -> None:
    network = Nested()
    before, state = modules(network), network.state_dict()

    def work(comm: ThreadComm) -> dict[str, nn.Module]:
        if comm.rank:
            return {}
        with shared_layers(network, BatchSharing(comm)):
            inside = modules(network)
            assert network.state_dict().keys() == state.keys()
            assert network.state_dict()["norm.running_mean"].data_ptr() == state["norm.running_mean"].data_ptr()
            assert [id(p) for p in network.parameters()] == [id(p) for name, p in before_parameters]
            sharing = {name for name, module in inside.items() if isinstance(module, BatchNorm) and module.context}
            assert sharing == {"norm", "body.2.deep"}
            network.eval()
        return inside

    before_parameters = list(network.named_parameters())
    inside, _ = on_ranks(2, work)
    assert [name for name in inside if name in before] == list(before)
    kinds = {name: type(module) for name, module in inside.items() if module is not before.get(name, module)}
    assert kinds == {"body.1": SharedDropout}
    assert inside["body.1"].layer is before["body.1"]
    after = modules(network)
    assert all(after[name] is module for name, module in before.items())
    assert not any(module.training for module in after.values()), "as the network was left"
    assert after["norm"].context is after["body.2.deep"].context is None


@pytest.mark.parametrize(
    "training",
    [True, False],
)
def test_shared_layers_begin_in_the_mode_of_torchs(training: bool) -> None:
    network = Nested().train(training)
    with shared_layers(network, BatchSharing(ThreadComm(0, 2, None, []))):  # type: ignore[arg-type]
        assert network.norm.training == network.body[1].training == training


def test_where_nobody_shares_or_it_is_to_be_fast_nothing_is_replaced() -> None:
    network = Nested()
    before = modules(network)
    with shared_layers(network, BatchSharing()):
        assert modules(network) == before
    fast = BatchSharing(ThreadComm(0, 2, None, []), exact=False)  # type: ignore[arg-type]
    with shared_layers(network, fast):
        assert modules(network) == before


def test_a_layer_that_stands_in_two_places_is_shared_in_both() -> None:
    dropout = nn.Dropout(0.5)
    network = nn.Sequential(dropout, nn.Linear(2, 2), dropout)
    with shared_layers(network, BatchSharing(ThreadComm(0, 2, None, []))):  # type: ignore[arg-type]
        assert isinstance(network[0], SharedDropout)
        assert isinstance(network[2], SharedDropout)
    assert network[0] is network[2] is dropout


def test_after_a_step_layers_know_nothing_of_its_batch() -> None:
    """Between steps they compute as they do alone, also after a step that failed."""
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    sharing = BatchSharing(ThreadComm(0, 2, None, []))  # type: ignore[arg-type]  # it would fail to send
    with shared_layers(network, sharing) as context:
        with contextlib.suppress(RuntimeError), context.of(sharing.shard(torch.arange(7))):
            assert context.shard is not None
            raise RuntimeError
        assert context.shard is None
        torch.manual_seed(0)
        output = network(batch((7, 3), 0).float())
    torch.manual_seed(0)
    assert torch.equal(output, network(batch((7, 3), 0).float()))
    with contextlib.suppress(RuntimeError), shared_layers(network, sharing):
        raise RuntimeError
    assert isinstance(network[1], nn.Dropout)


def trained(network: nn.Module, sharing: BatchSharing, images: list[torch.Tensor]) -> tuple[nn.Module, list[float]]:
    """Six steps on the ranks' shards of some batches; the network and its losses."""
    optimizer, losses = torch.optim.SGD(network.parameters(), lr=1.0), []
    with shared_layers(network, sharing) as context:
        for batch in images:
            shard = sharing.shard(torch.arange(len(batch)))
            rows = shard.samples
            optimizer.zero_grad()
            with context.of(shard):
                loss = functional.cross_entropy(network(batch[rows]), rows % 2) * shard.weight
                loss.backward()
            for parameter in network.parameters():
                parameter.grad = sharing.sum(parameter.grad)
            optimizer.step()
            losses.append(float(sharing.sum(loss.detach().double())))
    return network, losses


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_share_batches_of_volumes_become_what_one_rank_does_to_rounding(ranks: int) -> None:
    """A million pixels per channel, where PyTorch's own variance is wrong by 5e-4 on one rank, by less on several.

    What a rounding error can flip is left out: ReLUs, and Adam, which makes steps of any gradient however small.
    """
    torch.manual_seed(0)
    body = [nn.BatchNorm3d(2), nn.Conv3d(2, 6, 4, stride=4, bias=False), nn.BatchNorm3d(6), nn.SiLU()]
    network = accurate(nn.Sequential(*body, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 2)))
    network.to(memory_format=torch.channels_last_3d)
    images = [(torch.randn(4, 2, 64, 64, 64) + 3).to(memory_format=torch.channels_last_3d) for _ in range(6)]
    expected, losses = trained(copy.deepcopy(network), BatchSharing(), images)
    for replica, replica_losses in on_ranks(
        ranks, lambda comm: trained(copy.deepcopy(network), BatchSharing(comm), images)
    ):
        assert replica_losses == pytest.approx(losses, rel=1e-6)
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(replica.state_dict()[name], value, rtol=2e-6, atol=2e-6, msg=name)
