"""Training of one network by several ranks that share its batches, against training by one."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hpcdd.config.schema import TrainingSettings
from hpcdd.core.errors import DivergedError, StopRequest
from hpcdd.core.seeding import seed_of
from hpcdd.data.samples import AugmentationSeed, Samples
from hpcdd.parallel.batch_shards import BatchSharing, Flag
from hpcdd.parallel.sharded_coherent import ShardedDNN
from hpcdd.parallel.subdomain_sum import SubdomainSum
from hpcdd.training.checkpoints.manager import NullCheckpointManager
from hpcdd.training.checkpoints.snapshot import Snapshot
from hpcdd.training.random_streams import RandomStreams
from hpcdd.training.replica_checks import DriftError, checked
from hpcdd.training.split_evaluation import logits_of
from hpcdd.training.status import Hooks, Status
from hpcdd.training.trainer import train

from ..thread_ranks import ThreadComm, on_ranks
from ..waiting import LIMIT
from .test_trainer import stop_at
from .toy import parameters, ring, small


def with_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2)).double()


def doubled(samples: Samples) -> Samples:
    return Samples(samples.inputs.double(), samples.labels)


class Transforms(Samples):
    """Samples that move from epoch to epoch, as augmented ones do."""

    def in_epoch(self, seed: AugmentationSeed) -> Transforms:
        moved = 0.1 * torch.randn(
            self.inputs.shape, generator=torch.Generator().manual_seed(seed.of_epoch), dtype=torch.float64
        )
        return Transforms(self.inputs + moved, self.labels)


@pytest.mark.parametrize("kind", [Samples, Transforms])
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_share_batches_train_the_same_network_as_one(ranks: int, kind: type[Samples]) -> None:
    """Batches of 25 rows are shared unevenly, 110 samples for validation too."""
    training, validation = kind(doubled(ring(100)).inputs, ring(100).labels), doubled(ring(110, seed=1))
    settings = TrainingSettings(epochs=3, batch_size=25, early_stopping=3, optimizer="sgd", learning_rate=0.05)

    def trained_on(sharing: BatchSharing) -> tuple[nn.Module, list[Status], int]:
        network, statuses = copy.deepcopy(initial), []
        hooks = Hooks(epoch=statuses.append)
        steps = train(network, training, validation, settings, seed=0, phase="local", sharing=sharing, hooks=hooks)
        return network, statuses, steps

    initial = with_batch_norm()
    alone, expected, steps = trained_on(BatchSharing())
    assert parameters(alone).sub(parameters(initial)).abs().max() > 1e-2
    for network, statuses, number in on_ranks(ranks, lambda comm: trained_on(BatchSharing(comm))):
        assert number == steps
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(network.state_dict()[name], tensor, rtol=1e-9, atol=1e-9)
        for mine, reference in zip(statuses, expected, strict=True):
            assert mine.loss == pytest.approx(reference.loss, rel=1e-9)
            assert (mine.accuracy, mine.validation_accuracy) == (reference.accuracy, reference.validation_accuracy)
            assert mine.validation_loss == pytest.approx(reference.validation_loss, rel=1e-6)


@pytest.mark.parametrize(("exact", "streams"), [(True, 1), (False, 2)])
def test_ranks_that_do_not_share_masks_draw_their_own(
    monkeypatch: pytest.MonkeyPatch, exact: bool, streams: int
) -> None:
    begin, begun = RandomStreams.begin, set()

    def recorded(self: RandomStreams, seed: int, purpose: str, epoch: int) -> None:
        begun.add(seed_of(seed, purpose, subdomain=0, epoch=epoch))
        begin(self, seed, purpose, epoch)

    def work(comm: ThreadComm) -> None:
        settings = TrainingSettings(epochs=1, batch_size=20, schedule="constant")
        train(
            copy.deepcopy(initial),
            ring(40),
            None,
            settings,
            seed=0,
            phase="local",
            sharing=BatchSharing(comm, exact=exact),
        )

    initial = small()
    monkeypatch.setattr(RandomStreams, "begin", recorded)
    on_ranks(2, work)
    assert len(begun) == streams + (not exact)  # what a resumed run would draw


def test_without_shared_layers_running_statistics_are_averaged() -> None:
    initial = with_batch_norm()

    def work(comm: ThreadComm) -> nn.Module:
        network, sharing = copy.deepcopy(initial), BatchSharing(comm, exact=False)
        settings = TrainingSettings(epochs=1, batch_size=100, optimizer="sgd")
        train(network, doubled(ring(100)), None, settings, seed=0, phase="local", sharing=sharing)
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
            train(
                network, ring(100), None, settings, seed=0, phase="local", sharing=BatchSharing(comm, flag), hooks=hooks
            )
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

        return logits_of(network, samples, 500, step, BatchSharing(comm))

    for logits in on_ranks(ranks, work):
        torch.testing.assert_close(logits, logits_of(network, samples, 500))
    assert steps == [3] * ranks  # each a part of 500


def test_logits_of_fewer_samples_than_ranks() -> None:
    samples, network = ring(2), small().eval()
    for logits in on_ranks(3, lambda comm: logits_of(network, samples, 1, sharing=BatchSharing(comm))):
        torch.testing.assert_close(logits, logits_of(network, samples, 1))


# -- ranks leave a training together -----------------------------------------------------------------------------------


def two_by_two() -> list[tuple[ThreadComm, ThreadComm]]:
    """Of four ranks, two replicas of two subdomains each: their communicators across subdomains, and of replicas."""
    across, replicas = ([(threading.Barrier(2, timeout=LIMIT), [None] * 2) for _ in range(2)] for _ in range(2))
    return [
        (ThreadComm(s, 2, *across[replica]), ThreadComm(replica, 2, *replicas[s]))
        for s in range(2)
        for replica in range(2)
    ]


class SumsOnly(NullCheckpointManager):
    """Keeps the sums of the running epoch of the last snapshot."""

    def save(self, snapshot: Callable[[], Snapshot], steps: int) -> None:
        self.sums = snapshot().facts["sums"]


@pytest.mark.parametrize("step", [2, 3])
def test_a_stop_saves_what_all_samples_so_far_add_up_to(step: int) -> None:
    """Before the second of two steps of an epoch, and in the evaluation behind them."""

    def work(comm: ThreadComm) -> list[float]:
        settings, manager = TrainingSettings(epochs=1, batch_size=20, schedule="constant"), SumsOnly()
        stop, sharing, network = stop_at(step), BatchSharing(comm), copy.deepcopy(initial)

        def together() -> None:
            try:
                stop()
            except StopRequest as request:
                request.shared = True
                raise

        hooks = Hooks(step=together)
        with pytest.raises(StopRequest):
            train(
                network, ring(40), ring(40, seed=1), settings,
                seed=0, phase="local", sharing=sharing, hooks=hooks, manager=manager,
            )  # fmt: skip
        return manager.sums

    initial = small()
    first, second = on_ranks(2, work)
    assert first == second
    assert first[2] == 20 * (step - 1)


class Part(nn.Module):
    """One subdomain's part of a DNN on the samples themselves."""

    def __init__(self, subdomain: int, reduction: SubdomainSum) -> None:
        super().__init__()
        torch.manual_seed(0)
        blocks, bias = torch.randn(2, 4, 2) / 4, torch.zeros(4)
        rest = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
        self.dnn = ShardedDNN({subdomain: blocks[subdomain].clone()}, bias, rest, reduction)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dnn([x])  # type: ignore[no-any-return]


def with_a_giant(samples: Samples) -> Samples:
    """In the batches of one replica alone, since those have one row of each of the ranks that share them."""
    samples.inputs[3] = 1e9
    return samples


@pytest.mark.parametrize("where", ["training", "validation"])
def test_all_ranks_leave_at_the_step_at_which_one_replica_diverges(where: str) -> None:
    """What one replica alone can't add, at a step or in the evaluation, the others hear of before they wait for it."""
    lock = threading.Lock()

    def work(world: ThreadComm) -> tuple[int, bool, torch.Tensor]:
        across, replicas = grid[world.rank]
        training, validation = ring(40), ring(40, seed=1)
        with_a_giant(training if where == "training" else validation)
        flag, steps = Flag(), itertools.count()
        with lock:  # which draws from torch's global state
            network = Part(world.rank // 2, SubdomainSum(across, "ordered", flag))
        settings = TrainingSettings(epochs=3, batch_size=40, schedule="constant", optimizer="sgd")
        hooks = checked(Hooks(step=lambda: next(steps)), world, {})
        sharing = BatchSharing(replicas, flag)
        with pytest.raises(DivergedError) as caught:
            train(network, training, validation, settings, seed=0, phase="local", sharing=sharing, hooks=hooks)
        assert caught.value.heard or "a summand of the DNN's first layer is " in str(caught.value)
        return next(steps), caught.value.heard, parameters(network)

    grid = two_by_two()
    outcomes = on_ranks(4, work)
    assert {steps for steps, _, _ in outcomes} == {1 if where == "training" else outcomes[0][0]}
    assert all(bool(torch.isfinite(values).all()) for _, _, values in outcomes)
    if where == "training":
        heard = [heard for _, heard, _ in outcomes]
        assert heard[:2] == heard[2:]
        assert sorted(heard[:2]) == [False, True]


def test_a_loss_that_only_one_rank_looks_at_ends_the_training_on_all() -> None:
    """Where root's status is due in the middle of an epoch."""

    def work(comm: ThreadComm) -> int:
        samples, steps = ring(40), itertools.count()
        samples.inputs[:] = float("nan")
        hooks = Hooks(step=lambda: next(steps), due=lambda: comm.rank == 0 and next(asked) == 2)
        settings = TrainingSettings(epochs=1, batch_size=4, schedule="constant")
        network = copy.deepcopy(initial)
        with pytest.raises(DivergedError) as caught:
            train(
                network, samples, None, settings, seed=0, phase="local", sharing=BatchSharing(comm, Flag()), hooks=hooks
            )
        assert caught.value.heard == (comm.rank == 1)
        return next(steps)

    initial, asked = small(), itertools.count()
    assert on_ranks(2, work) == [3, 3]


# -- processors that round in their own way ----------------------------------------------------------------------------


def on_unlike_processors(kinds: list[str], nudge: float) -> list[tuple[int, torch.Tensor]]:
    """A training with early stopping by two ranks, of which the second rounds otherwise, and sees other accuracies.

    Returns:
        Of each its epochs, and its parameters.
    """
    initial = small()

    def work(comm: ThreadComm) -> tuple[int, torch.Tensor]:
        network, epochs = copy.deepcopy(initial), itertools.count()
        validation = ring(40, seed=1)
        if comm.rank == 1:
            validation.labels[:] = 1 - validation.labels

        def step() -> None:
            if comm.rank == 1:
                with torch.no_grad():
                    for p in network.parameters():
                        p.mul_(1 + nudge)

        hooks = Hooks(step=step, epoch=lambda _: next(epochs))
        hooks = checked(hooks, comm, {"the network": list(network.parameters())}, kinds[comm.rank])
        settings = TrainingSettings(epochs=12, batch_size=20, early_stopping=2, learning_rate=0.05)
        args: dict[str, Any] = {"seed": 0, "phase": "local", "sharing": BatchSharing(comm), "hooks": hooks}
        train(network, ring(200), validation, settings, **args)
        return next(epochs), parameters(network)

    return on_ranks(2, work)


def test_ranks_on_unlike_processors_stop_together_with_the_same_parameters() -> None:
    (epochs, one), (other_epochs, other) = on_unlike_processors(["old", "new"], 2**-23)
    assert epochs == other_epochs < 12
    assert torch.equal(one, other)


def test_on_like_processors_such_a_rank_is_a_defect() -> None:
    with pytest.raises(DriftError, match="local, epoch 1: copies of the network differ between ranks"):
        on_unlike_processors(["same", "same"], 2**-23)


def test_a_rank_that_computes_something_else_is_a_defect_on_any() -> None:
    with pytest.raises(DriftError, match="by more than different processors explain"):
        on_unlike_processors(["old", "new"], 2**-3)
