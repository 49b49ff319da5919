"""Training of one network by several ranks that share its batches, against training by one."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from hpcdd.config import TrainingSettings
from hpcdd.data.samples import Samples
from hpcdd.errors import StopRequest
from hpcdd.parallel.layers import shared_layers
from hpcdd.parallel.share import Flag, Share
from hpcdd.phases.status import Hooks, Status
from hpcdd.phases.training import logits_of, train

from ..thread_ranks import ThreadComm, on_ranks
from .toy import parameters, ring, small


def with_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2)).double()


def doubled(samples: Samples) -> Samples:
    return Samples(samples.inputs.double(), samples.labels)


class Views(Samples):
    """Samples that move from epoch to epoch, as augmented ones do."""

    def in_epoch(self, seed: int) -> Views:
        moved = 0.1 * torch.randn(self.inputs.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return Views(self.inputs + moved, self.labels)


@pytest.mark.parametrize("kind", [Samples, Views])
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_share_batches_train_the_same_network_as_one(ranks: int, kind: type[Samples]) -> None:
    """Batches of 25 rows are shared unevenly, 110 samples for validation too."""
    training, validation = kind(doubled(ring(100)).inputs, ring(100).labels), doubled(ring(110, seed=1))
    settings = TrainingSettings(epochs=3, batch_size=25, early_stopping=3, optimizer="sgd", learning_rate=0.05)

    def trained_on(share: Share) -> tuple[nn.Module, list[Status], int]:
        network, statuses = copy.deepcopy(initial), []
        hooks = Hooks(epoch=statuses.append)
        with shared_layers(network, share):
            steps = train(network, training, validation, settings, seed=0, phase="local", share=share, hooks=hooks)
        return network, statuses, steps

    initial = with_batch_norm()
    alone, expected, steps = trained_on(Share())
    assert parameters(alone).sub(parameters(initial)).abs().max() > 1e-2
    for network, statuses, number in on_ranks(ranks, lambda comm: trained_on(Share(comm))):
        assert number == steps
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-9, atol=1e-9)
        for mine, its in zip(statuses, expected, strict=True):
            assert mine.loss == pytest.approx(its.loss, rel=1e-9)
            assert (mine.accuracy, mine.validation_accuracy) == (its.accuracy, its.validation_accuracy)
            assert mine.validation_loss == pytest.approx(its.validation_loss, rel=1e-6)


def test_without_shared_layers_running_statistics_are_averaged() -> None:
    initial = with_batch_norm()

    def work(comm: ThreadComm) -> nn.Module:
        network, share = copy.deepcopy(initial), Share(comm, exact=False)
        settings = TrainingSettings(epochs=1, batch_size=100, optimizer="sgd")
        with shared_layers(network, share):
            train(network, doubled(ring(100)), None, settings, seed=0, phase="local", share=share)
        return network

    one, other = on_ranks(2, work)
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in one.state_dict())
    mean = 0.1 * initial[0](doubled(ring(100)).inputs).mean(0)  # one step of momentum 0.1, from zero
    torch.testing.assert_close(one[1].running_mean, mean.detach())


@pytest.mark.parametrize("wishing", [0, 1])
def test_one_ranks_wish_stops_all_that_share_before_the_step_is_taken(wishing: int) -> None:
    """The wish comes at the third step of the first epoch."""

    def work(comm: ThreadComm) -> tuple[int, torch.Tensor]:
        asked = itertools.count(1)
        flag = Flag(lambda: next(asked) == 3 and comm.rank == wishing)
        network, steps = copy.deepcopy(initial), itertools.count()
        settings = TrainingSettings(epochs=3, batch_size=25, schedule="constant", optimizer="sgd")
        hooks = Hooks(step=lambda: next(steps))
        with pytest.raises(StopRequest, match="in phase local"):
            train(network, ring(100), None, settings, seed=0, phase="local", share=Share(comm, flag), hooks=hooks)
        return next(steps), parameters(network)

    initial = small()
    (steps, one), (other_steps, other) = on_ranks(2, work)
    assert steps == other_steps == 3
    assert torch.equal(one, other)


@pytest.mark.parametrize("ranks", [2, 3])
def test_logits_of_a_shared_split_are_those_of_one_rank(ranks: int) -> None:
    samples, network, steps = ring(1300), small().eval(), [0] * ranks

    def work(comm: ThreadComm) -> torch.Tensor:
        def step() -> None:
            steps[comm.rank] += 1

        return logits_of(network, samples, 500, step, Share(comm))

    for logits in on_ranks(ranks, work):
        torch.testing.assert_close(logits, logits_of(network, samples, 500))
    assert steps == [3] * ranks  # each a part of 500


def test_logits_of_fewer_samples_than_ranks() -> None:
    samples, network = ring(2), small().eval()
    for logits in on_ranks(3, lambda comm: logits_of(network, samples, 1, share=Share(comm))):
        torch.testing.assert_close(logits, logits_of(network, samples, 1))
