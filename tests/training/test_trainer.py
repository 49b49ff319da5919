"""Training of one network: it learns, it is reproducible, it stops when it should."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from hpcdd.config.schema import CNNTrainingSettings, TrainingSettings
from hpcdd.core.errors import DivergedError, StopRequest
from hpcdd.data.samples import Samples
from hpcdd.models.vgg import VGG
from hpcdd.training.checkpoints.manager import NullCheckpointManager
from hpcdd.training.checkpoints.snapshot import Snapshot
from hpcdd.training.split_evaluation import evaluate, logits_of
from hpcdd.training.status import Hooks, Status
from hpcdd.training.trainer import train

from .toy import parameters, ring, small


def trained(*, seed: int = 0, subdomain: int = 2, phase: str = "local", drawn_before: int = 0) -> torch.Tensor:
    network = small(dropout=0.3)
    torch.manual_seed(drawn_before)
    torch.rand(drawn_before)
    settings = TrainingSettings(epochs=3, batch_size=16)
    train(network, ring(100), None, settings, seed=seed, phase=phase, subdomain=subdomain)
    return parameters(network)


def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before() -> None:
    assert torch.equal(trained(), trained(drawn_before=12345))


def test_seed_subdomain_and_phase_give_streams_of_their_own() -> None:
    results = [trained(), trained(seed=1), trained(subdomain=3), trained(phase="dnn")]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(results, 2))


class Recorder(nn.Linear):
    """Notes which samples each training batch holds; their first feature is their number."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.batches: list[list[int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.batches.append(x[:, 0].int().tolist())
        return super().forward(x / 100)


def test_each_epoch_visits_the_samples_once_in_a_new_order_and_drops_the_rest() -> None:
    samples = Samples(torch.stack([torch.arange(103.0), torch.zeros(103)], 1), torch.arange(103) % 2)
    network = Recorder()
    train(network, samples, None, TrainingSettings(epochs=4, batch_size=10), seed=0, phase="local")
    assert [len(batch) for batch in network.batches] == [10] * 40
    epochs = [list(itertools.chain(*network.batches[10 * e : 10 * e + 10])) for e in range(4)]
    assert all(len(set(epoch)) == 100 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({frozenset(epoch) for epoch in epochs}) > 1  # it is not always the same three that are dropped
    assert all(epoch != sorted(epoch) for epoch in epochs)


@pytest.mark.parametrize("n", [2, 5, 127])
def test_fewer_samples_than_a_batch_are_one_batch(n: int) -> None:
    statuses: list[Status] = []
    network = VGG(2, (1, 4, 4), 2, 4, (0.0, 0.0))
    images = torch.randint(0, 255, (n, 1, 4, 4), dtype=torch.uint8)
    samples = Samples.of_images(images, torch.arange(n) % 2, [127.0], [70.0], "cpu")
    before = parameters(network)
    settings = TrainingSettings(epochs=3, batch_size=128)
    train(network, samples, samples, settings, seed=0, phase="local", hooks=Hooks(epoch=statuses.append))
    assert [status.epoch for status in statuses] == [1, 2, 3]
    assert not torch.equal(parameters(network), before)
    assert parameters(network).isfinite().all()


class Breaks(nn.Linear):
    """Gives NaN from the k-th training batch on."""

    def __init__(self, good_batches: int) -> None:
        super().__init__(2, 2)
        self.left = good_batches

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= self.training
        return super().forward(x) * (math.nan if self.left < 0 else 1.0)


@pytest.mark.parametrize(("good_batches", "epoch"), [(0, 1), (9, 1), (10, 2), (29, 3)])
def test_nan_names_subdomain_and_epoch(good_batches: int, epoch: int) -> None:
    settings = TrainingSettings(epochs=3, batch_size=10)
    with pytest.raises(DivergedError, match=rf"local: the training loss of subdomain 7 is nan in epoch {epoch};"):
        train(Breaks(good_batches), ring(100), None, settings, seed=0, phase="local", subdomain=7)


@pytest.mark.parametrize(
    ("phase", "description"),
    [
        ("local", r"the local CNN is nan .*local\.learning_rate.*or local\.precision fp32$"),
        ("dnn", r"the DNN is nan .*aggregation\.learning_rate, the one_cycle schedule \(it starts low\)$"),
        ("coherent_transfer", r"the coherent model \(transfer\) is nan .*coherent\.learning_rate.*coherent\.precision"),
        ("coherent_scratch", r"the coherent model \(scratch\) is nan .*coherent\.learning_rate.*coherent\.precision"),
        ("global", r"the global CNN is nan .*baseline\.learning_rate.*baseline\.precision"),
    ],
)
def test_nan_names_what_is_trained_and_the_settings_of_its_phase(phase: str, description: str) -> None:
    with pytest.raises(DivergedError, match=f"^phase {phase}: the training loss of {description}"):
        train(Breaks(0), ring(20), None, TrainingSettings(batch_size=10), seed=0, phase=phase)


def test_nan_is_met_at_the_next_status_that_is_due() -> None:
    network, settings, hooks = Breaks(3), TrainingSettings(batch_size=10), Hooks(due=lambda: True)
    with pytest.raises(DivergedError, match=r"the DNN .*epoch 1; .*aggregation\.learning_rate"):
        train(network, ring(100), None, settings, seed=0, phase="dnn", hooks=hooks)
    assert network.left == -2  # behind that step's messages, by which other ranks hear of it


def test_a_learning_rate_that_explodes() -> None:
    settings = TrainingSettings(optimizer="sgd", schedule="constant", learning_rate=1e30, epochs=3, batch_size=10)
    with pytest.raises(DivergedError, match=r"subdomain 0 is (nan|inf).*try a smaller local.learning_rate"):
        train(small(), ring(100), None, settings, seed=0, phase="local", subdomain=0)


def watch(network: nn.Module) -> tuple[Hooks, list[float], list[torch.Tensor]]:
    accuracies: list[float] = []
    snapshots: list[torch.Tensor] = []

    def epoch(status: Status) -> None:
        assert status.validation_accuracy is not None
        accuracies.append(status.validation_accuracy)
        snapshots.append(parameters(network))

    return Hooks(epoch=epoch), accuracies, snapshots


def opposed() -> tuple[Samples, Samples, nn.Module]:
    """A network that is right on the validation split, and a training split that teaches it the contrary."""
    train_, validation = ring(200), ring(100, seed=1)
    network = small()
    train(network, validation, None, TrainingSettings(epochs=20, batch_size=20, learning_rate=0.02), seed=0, phase="x")
    return Samples(train_.inputs, 1 - train_.labels), validation, network


@pytest.mark.parametrize("rate", [0.003, 0.005, 0.01])  # the accuracy stays equal; goes up, then down; falls quickly
def test_early_stopping_ends_and_gives_the_best_back(rate: float) -> None:
    training, validation, network = opposed()
    hooks, accuracies, snapshots = watch(network)
    settings = TrainingSettings(epochs=50, batch_size=20, early_stopping=2, schedule="constant", learning_rate=rate)
    train(network, training, validation, settings, seed=0, phase="local", hooks=hooks)
    assert len(accuracies) == accuracies.index(max(accuracies)) + 1 + 2 < 50
    best = snapshots[accuracies.index(max(accuracies))]
    assert torch.equal(parameters(network), best)
    assert not torch.equal(best, snapshots[-1])
    assert evaluate(network, validation, 64)[1] == pytest.approx(max(accuracies))


def test_early_stopping_gives_the_best_back_where_the_epochs_run_out_first() -> None:
    training, validation, network = opposed()
    hooks, accuracies, snapshots = watch(network)
    settings = TrainingSettings(epochs=4, batch_size=20, early_stopping=9, learning_rate=0.02)
    train(network, training, validation, settings, seed=0, phase="local", hooks=hooks)
    assert len(accuracies) == 4
    assert torch.equal(parameters(network), snapshots[accuracies.index(max(accuracies))])
    assert not torch.equal(parameters(network), snapshots[-1])


def test_without_early_stopping_the_last_parameters_stay() -> None:
    training, validation, network = opposed()
    hooks, accuracies, snapshots = watch(network)
    settings = TrainingSettings(epochs=4, batch_size=20, learning_rate=0.02)
    train(network, training, validation, settings, seed=0, phase="local", hooks=hooks)
    assert max(accuracies) > accuracies[-1]
    assert torch.equal(parameters(network), snapshots[-1])


def test_hooks_and_what_they_are_told() -> None:
    steps, due, statuses, epochs = [0], itertools.cycle([False, False, True]), [], []
    hooks = Hooks(
        step=lambda: steps.__setitem__(0, steps[0] + 1),
        due=lambda: next(due),
        status=statuses.append,
        epoch=epochs.append,
    )
    settings = TrainingSettings(epochs=4, batch_size=30)
    train(small(), ring(100), ring(50, seed=1), settings, seed=0, phase="local", subdomain=5, hooks=hooks)
    assert steps == [4 * (3 + 2) + 1]  # before each step, each batch of the validation split, and at the end
    assert [status.fraction for status in statuses] == pytest.approx([(2 + 3 * e) / 12 for e in range(4)])
    assert [status.epoch for status in statuses] == [0, 1, 2, 3]
    assert [status.epoch for status in epochs] == [1, 2, 3, 4]
    assert [status.fraction for status in epochs] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert [status.finished for status in epochs] == [False, False, False, True]
    assert {(status.phase, status.subdomain, status.epochs) for status in (*statuses, *epochs)} == {("local", 5, 4)}
    assert statuses[0].validation_accuracy is None
    assert statuses[1].validation_accuracy == epochs[0].validation_accuracy is not None
    assert epochs[-1].loss < epochs[0].loss
    assert all(0 <= status.accuracy <= 1 and status.samples_per_second >= 0 for status in (*statuses, *epochs))
    assert [s.seconds for s in epochs] == sorted(s.seconds for s in epochs)


def stop_at(step: int) -> Callable[[], None]:
    count = itertools.count(1)

    def hook() -> None:
        if next(count) == step:
            raise StopRequest(signal.SIGTERM, "local")

    return hook


@pytest.mark.parametrize("step", [1, 4, 13])
def test_a_stop_request_passes_through_at_once(step: int) -> None:
    class Counting(nn.Linear):
        batches = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.batches += 1
            return super().forward(x)

    network = Counting(2, 2)
    settings = TrainingSettings(epochs=4, batch_size=30)
    with pytest.raises(StopRequest) as caught:
        train(network, ring(100), None, settings, seed=0, phase="local", hooks=Hooks(step=stop_at(step)))
    assert caught.value.exit_code == 75
    assert network.batches == step - 1


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_stop_request_of_one_rank_saves_only_what_needs_no_other_rank(alone: bool, shared: bool) -> None:
    """Those with which it shares a checkpoint would have to save it now, too."""

    class Manager(NullCheckpointManager):
        saved = 0

        @property
        def alone(self) -> bool:
            return alone

        def save(self, snapshot: Callable[[], Snapshot], steps: int) -> None:
            self.saved += 1

    def step() -> None:
        request = StopRequest(signal.SIGTERM, "local")
        request.shared = shared
        raise request

    manager, settings = Manager(), TrainingSettings(epochs=4, batch_size=30)
    with pytest.raises(StopRequest):
        train(small(), ring(100), None, settings, seed=0, phase="local", hooks=Hooks(step=step), manager=manager)
    assert manager.saved == (alone or shared)


def test_logits_come_in_evaluation_mode_over_many_batches() -> None:
    samples, network = ring(1300), small(dropout=0.5)
    steps = [0]
    logits = logits_of(network, samples, 512, lambda: steps.__setitem__(0, steps[0] + 1))
    assert steps == [3]
    assert logits.shape == (1300, 2)
    with torch.no_grad():
        expected = network.eval()(samples.inputs)
    torch.testing.assert_close(logits, expected)
    loss, accuracy = evaluate(network, samples, 64)
    assert loss == pytest.approx(float(nn.functional.cross_entropy(expected, samples.labels)), rel=1e-5)
    assert accuracy == pytest.approx(float((expected.argmax(1) == samples.labels).double().mean()))


def test_the_status_of_an_epoch_is_the_mean_over_its_samples() -> None:
    statuses: list[Status] = []
    settings = TrainingSettings(epochs=1, batch_size=25, optimizer="sgd", weight_decay=0, learning_rate=1e-9)
    network, samples = small(), ring(100)
    train(network, samples, samples, settings, seed=0, phase="local", hooks=Hooks(epoch=statuses.append))
    loss, accuracy = evaluate(network, samples, 64)  # nothing moved
    (status,) = statuses
    assert (status.loss, status.accuracy) == (pytest.approx(loss, rel=1e-5), pytest.approx(accuracy))
    assert (status.validation_loss, status.validation_accuracy) == (pytest.approx(loss, rel=1e-5), accuracy)


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(100, 30, 3), (100, 10, 10), (7, 128, 1)])
def test_the_number_of_steps_is_given(n: int, batch_size: int, steps: int) -> None:
    settings = TrainingSettings(epochs=4, batch_size=batch_size)
    assert train(small(), ring(n), None, settings, seed=0, phase="local") == 4 * steps


def test_the_number_of_steps_until_an_early_stop_is_given() -> None:
    training, validation, network = opposed()
    hooks, accuracies, _ = watch(network)
    settings = TrainingSettings(epochs=50, batch_size=20, early_stopping=2, learning_rate=0.01)
    steps = train(network, training, validation, settings, seed=0, phase="local", hooks=hooks)
    assert steps == len(accuracies) * 10 < 500


def test_the_end_of_an_epoch_has_a_context_of_its_own() -> None:
    events: list[str] = []

    @contextmanager
    def evaluation() -> Iterator[None]:
        events.append("(")
        yield
        events.append(")")

    hooks = Hooks(step=lambda: events.append("s"), epoch=lambda _: events.append("e"), evaluation=evaluation)
    settings = TrainingSettings(epochs=2, batch_size=40)
    train(small(), ring(100), ring(50, seed=1), settings, seed=0, phase="local", hooks=hooks)
    assert "".join(events) == "ss(ss)e" * 2 + "s"  # two steps; the two batches of the validation split inside


class TwoParts(nn.Module):
    """The mean of two networks, both with dropout, that compute in one order or in the other."""

    def __init__(self, *, turned: bool = False) -> None:
        super().__init__()
        self.parts, self.turned = nn.ModuleList([small(dropout=0.3), small(dropout=0.3)]), turned

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(part(x) for part in (reversed(self.parts) if self.turned else self.parts)) / 2


@pytest.mark.parametrize("streams", [True, False])
def test_parts_have_random_streams_of_their_own(streams: bool) -> None:
    def outcome(*, turned: bool) -> torch.Tensor:
        network = TwoParts(turned=turned)
        parts = {4: network.parts[0], 9: network.parts[1]} if streams else None
        settings = TrainingSettings(epochs=3, batch_size=16, optimizer="sgd")
        train(network, ring(100), None, settings, seed=0, phase="coherent_scratch", parts=parts)
        return parameters(network)

    assert torch.allclose(outcome(turned=False), outcome(turned=True)) == streams


bf16 = pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no bfloat16")


@bf16
def test_bf16_trains_and_leaves_float32_parameters() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(128) % 2
    images = torch.randint(0, 100, (128, 1, 8, 8), dtype=torch.uint8, generator=generator)
    images[labels == 1, :, ::2] += 100
    samples = Samples.of_images(images, labels, [75.0], [50.0], "cpu")
    results = []
    for half in (False, True):
        torch.manual_seed(0)
        network = VGG(2, (1, 8, 8), 2, 8, (0.0, 0.0))
        settings = CNNTrainingSettings(epochs=10, batch_size=32, precision="bf16" if half else "fp32")
        train(network, samples, None, settings, seed=0, phase="local")
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        assert logits_of(network, samples, 64).dtype == torch.float32
        assert evaluate(network, samples, 64)[1] > 0.95
        results.append(parameters(network))
    assert not torch.equal(*results)  # it did compute in another precision


@pytest.mark.parametrize("continues", [False, True])
def test_a_training_that_continues_never_ends_below_its_start(continues: bool) -> None:
    """A rate that destroys the network: with early stopping the start is kept, where it counts."""
    network, validation = small(), ring(200, seed=1)
    train(
        network, ring(400), None, TrainingSettings(epochs=10, batch_size=20, learning_rate=0.02), seed=0, phase="local"
    )
    before, (_, accuracy) = parameters(network), evaluate(network, validation, 100)
    assert accuracy > 0.9
    settings = TrainingSettings(
        optimizer="adam", learning_rate=5.0, schedule="constant", epochs=4, batch_size=20, early_stopping=2
    )
    train(network, ring(400), validation, settings, seed=0, phase="coherent_transfer", continues=continues)
    assert torch.equal(parameters(network), before) == continues
    assert (evaluate(network, validation, 100)[1] >= accuracy) == continues
