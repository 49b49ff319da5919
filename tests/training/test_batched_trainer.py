"""CNNs that are trained together become what each becomes by itself, and nothing of theirs is lost on the way."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hpcdd.config.schema import Config
from hpcdd.config.sections import CheckpointSettings
from hpcdd.core.errors import DivergedError, StopRequest
from hpcdd.data.augmentation import AugmentedSamples
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.data.sample_loading import Where
from hpcdd.decomposition.rank_layout import RankPlacement
from hpcdd.mpi.traffic import Ledger
from hpcdd.phases.local import LocalResult, groups, train_local_cnns, trains_batched
from hpcdd.training import cuda_graphs, step_timing
from hpcdd.training.checkpoints.manager import CheckpointManager, CheckpointStats, NullCheckpointManager, TrainingCosts
from hpcdd.training.status import Hooks, Status
from hpcdd.training.steps import BatchedSteps

from .test_trainer import stop_at

ALL = (0, 1, 2, 3)


class Run:
    """One local phase on the tiny data set; every CNN's statuses, by subdomain."""

    def __init__(
        self,
        tiny: Path,
        folder: Path | None = None,
        *,
        batched: bool = True,
        step: Callable[[], None] = lambda: None,
        subdomains: tuple[int, ...] = ALL,
        stats: CheckpointStats | None = None,
        every: str = "1000 epochs",
        more: Mapping[str, Any] | None = None,
        **local: Any,
    ) -> None:
        settings = {"epochs": 2, "batch_size": 50, "learning_rate": 1e-3, **local}
        content = {
            "data": {"file": str(tiny), "validation_fraction": 0.2},
            "model": {"name": "vgg1", "width": 8},
            "local": settings,
            "batched": batched,
            **(more or {}),
        }
        config = Config.model_validate(content)
        problem, placement = build_problem(config), RankPlacement(0, "here", "cpu", "cpu", 1, subdomains)
        where: Where = "stream" if config.data.storage == "stream" else "device"
        samples = problem.read(BoxReader(problem.info.path), subdomains, "cpu", where)
        self.stats = stats or CheckpointStats(print)
        self.statuses: dict[int, list[Status]] = {}
        self.order: list[tuple[int, int]] = []

        def manager(subdomain: int) -> NullCheckpointManager:
            if folder is None:
                return NullCheckpointManager()
            return CheckpointManager(
                folder / str(subdomain),
                "a run",
                CheckpointSettings(every=every),
                self.stats,
                phase="local",
                ledger=Ledger(0),
                comm=None,
                subdomain_of=lambda _: subdomain,
                writes=(subdomain,),
                reads=(subdomain,),
            )

        def take(status: Status) -> None:
            self.statuses.setdefault(status.subdomain, []).append(status)
            self.order.append((status.subdomain, status.epoch))

        def history(statuses: object) -> None:
            for status in statuses:  # type: ignore[attr-defined]
                self.statuses.setdefault(status.subdomain, []).append(status)

        hooks = Hooks(step=step, epoch=take, history=history)
        self.results: dict[int, LocalResult] = {}
        self.results = train_local_cnns(
            config, placement, samples, 3, problem.widths.local_width, hooks, managers=manager
        )

    def close_to(self, other: Run) -> None:
        assert list(self.results) == list(other.results)
        for s, result in self.results.items():
            for (name, a), b in zip(
                result.network.state_dict().items(), other.results[s].network.state_dict().values(), strict=True
            ):
                torch.testing.assert_close(
                    a, b, rtol=1e-3, atol=2e-4, msg=lambda text, s=s, name=name: f"{s} {name}: {text}"
                )
            ours, theirs = self.statuses[s], other.statuses[s]
            assert [a.epoch for a in ours] == [b.epoch for b in theirs]
            for a, b in zip(ours, theirs, strict=True):
                assert (a.fraction, a.learning_rate, a.finished) == (b.fraction, b.learning_rate, b.finished)
                assert a.loss == pytest.approx(b.loss, rel=1e-3)
                assert a.accuracy == pytest.approx(b.accuracy, abs=0.02)
                assert a.validation_loss == pytest.approx(b.validation_loss, rel=1e-2)

    def same_as(self, other: Run) -> None:
        for s, result in self.results.items():
            theirs = other.results[s].network.state_dict().values()
            assert all(torch.equal(a, b) for a, b in zip(result.network.state_dict().values(), theirs, strict=True)), s
            assert [(a.epoch, a.loss, a.validation_loss) for a in self.statuses[s]] == [
                (b.epoch, b.loss, b.validation_loss) for b in other.statuses[s]
            ]


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "learning_rate": 1e-2, "schedule": "cosine"}])
def test_each_cnn_becomes_what_it_would_alone(tiny: Path, settings: dict[str, Any]) -> None:
    together, alone = Run(tiny, **settings), Run(tiny, batched=False, **settings)
    together.close_to(alone)
    assert together.order == [(s, epoch) for epoch in (1, 2) for s in ALL]
    assert alone.order == [(s, epoch) for s in ALL for epoch in (1, 2)]
    assert {r.steps for r in together.results.values()} == {r.steps for r in alone.results.values()}


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bf16")
def test_in_mixed_precision(tiny: Path) -> None:
    """Closer to mixed precision alone than that is to single precision."""
    runs = [Run(tiny, precision="bf16"), Run(tiny, precision="bf16", batched=False), Run(tiny, batched=False)]
    together, alone, single = ([run.statuses[s][-1].loss for s in ALL] for run in runs)
    assert together == pytest.approx(alone, rel=0.02)
    assert alone != single


def test_who_trains_with_it_changes_a_cnn_by_rounding_only(tiny: Path) -> None:
    Run(tiny, subdomains=(1, 3)).close_to(Run(tiny, subdomains=(1, 3), batched=False))


@pytest.mark.parametrize("step", [1, 5, 9])
@pytest.mark.parametrize(("first", "then"), [(True, True), (True, False), (False, True)])
def test_a_stopped_training_goes_on_in_either_way(
    tiny: Path, tmp_path: Path, step: int, first: bool, then: bool
) -> None:
    with pytest.raises(StopRequest):
        Run(tiny, tmp_path, batched=first, step=stop_at(step))
    on, whole = Run(tiny, tmp_path, batched=then), Run(tiny)
    on.close_to(whole)
    if first and then:
        on.same_as(whole)


def test_checkpoints_by_the_clock_are_of_all_at_one_step(tiny: Path, tmp_path: Path) -> None:
    """What a job that is killed has left is at most a checkpoint's interval old, for each of the CNNs."""
    count = itertools.count(1)

    def killed() -> None:
        if next(count) == 4:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        Run(tiny, tmp_path, every="0.000000001 minutes", step=killed)
    on, whole = Run(tiny, tmp_path), Run(tiny)
    on.same_as(whole)
    assert [on.results[s].steps for s in ALL] == [whole.results[s].steps - 3 for s in ALL]


def test_cnns_at_different_places_go_on_in_groups(tiny: Path, tmp_path: Path) -> None:
    """A job was killed while it wrote: some checkpoints are a few steps older."""
    for subdomains, step in (((0,), 3), ((1, 2), 5)):
        with pytest.raises(StopRequest):
            Run(tiny, tmp_path, subdomains=subdomains, step=stop_at(step))
    on = Run(tiny, tmp_path)
    on.close_to(Run(tiny, batched=False))
    assert [s for s, epoch in on.order if epoch == 2] == [3, 0, 1, 2]


def test_who_stops_early_at_one_place_leaves_those_at_another_as_they_are(tiny: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 8, "early_stopping": 1, "learning_rate": 3e-3}
    for subdomains, step in (((0, 1, 2), 3), ((3,), 6)):
        with pytest.raises(StopRequest):
            Run(tiny, tmp_path, subdomains=subdomains, step=stop_at(step), **settings)
    on, alone = Run(tiny, tmp_path, **settings), Run(tiny, batched=False, **settings)
    epochs = {s: len(on.statuses[s]) for s in ALL}
    assert len({epochs[s] for s in (0, 1, 2)}) > 1, "nobody leaves the others"
    assert epochs == {s: len(alone.statuses[s]) for s in ALL}
    whole = {s: alone.results[s].steps for s in ALL}
    assert [whole[s] - on.results[s].steps for s in ALL] == [2, 2, 2, 4], "what was done is not done again"


def test_who_stops_early_leaves_and_the_others_go_on(tiny: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 8, "early_stopping": 1, "learning_rate": 3e-3}
    together, alone = Run(tiny, tmp_path, **settings), Run(tiny, batched=False, **settings)
    ends = {s: statuses[-1].epoch for s, statuses in alone.statuses.items()}
    assert len(set(ends.values())) > 1, "choose settings with which they end at different epochs"
    together.close_to(alone)
    again = Run(tiny, tmp_path, **settings)  # all have come to their end
    assert again.order == []
    again.same_as(together)
    assert {r.steps for r in again.results.values()} == {0}


def test_each_has_its_part_of_the_costs(tiny: Path, tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(StopRequest):
        Run(tiny, tmp_path, step=stop_at(4))
    wall = time.perf_counter() - start
    stats = CheckpointStats(print)
    Run(tiny, tmp_path, stats=stats)
    costs = [stats.earlier["local", s] for s in ALL]
    assert {cost.steps for cost in costs} == {3}
    assert sum((cost for cost in costs), TrainingCosts()).seconds < wall


class OnPaper:
    """Records as a GPU does: what is recorded is not done then; what is replayed sees the same tensors every time."""

    def __init__(self) -> None:
        self.warm = self.recorded = self.replayed = 0

    def warm_up(self, work: Callable[[], None]) -> None:
        self.warm += 1
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


AUGMENTED = {"augmentation": {"flip": [1], "translate": 1}}


@pytest.mark.parametrize("more", [{}, AUGMENTED], ids=["plain", "augmented"])
def test_steps_are_recorded_once_and_replayed_over_all_epochs(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """The same augmentation, batches and sums of every epoch, though a record knows only the tensors of the first."""
    plain, recorders = Run(tiny, more=more, epochs=3), []

    def recorder_of(device: torch.device, generators: Sequence[torch.Generator]) -> OnPaper:
        assert (device.type, len(generators)) == ("cpu", 4)
        recorders.append(OnPaper())
        return recorders[-1]

    monkeypatch.setattr(cuda_graphs, "recorder_of", recorder_of)
    replayed = Run(tiny, more=more, epochs=3)
    replayed.same_as(plain)
    steps = replayed.results[0].steps
    assert [(r.warm, r.recorded, r.replayed) for r in recorders if r.warm] == [(3, 1, steps - 3)]


def test_an_epoch_whose_steps_are_measured_does_not_spoil_the_record(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --profile, an epoch's steps are not replayed; those of the next ones are, on their own samples."""
    plain, recorder, measured = Run(tiny, more=AUGMENTED, epochs=4), OnPaper(), iter([False, True, False, False])
    monkeypatch.setattr(cuda_graphs, "recorder_of", lambda *_: recorder)
    monkeypatch.setattr(step_timing, "measured", lambda: next(measured))
    replayed = Run(tiny, more=AUGMENTED, epochs=4)
    replayed.same_as(plain)
    steps = replayed.results[0].steps // 4
    assert (recorder.warm, recorder.recorded, recorder.replayed) == (6, 2, 3 * steps - 6)


def test_what_is_streamed_is_not_recorded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = OnPaper()
    monkeypatch.setattr(cuda_graphs, "recorder_of", lambda *_: recorder)
    run = Run(tiny, more={"data": {"file": str(tiny), "validation_fraction": 0.2, "storage": "stream"}})
    assert recorder.warm == recorder.recorded == 0
    assert run.results[0].steps > 3


def test_a_step_that_can_not_be_recorded_names_the_way_round(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(OnPaper):
        def record(self, work: Callable[[], None]) -> Callable[[], None]:
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "recorder_of", lambda *_: Refusing())
    with pytest.raises(RuntimeError, match="not permitted") as error:
        Run(tiny)
    assert "`batched: false`" in error.value.__notes__[0]


class NeverWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU."""

    WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "equal", "is_nonzero")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert not name.startswith(self.WAITING), f"{name} waits for the device"
        if name in ("index", "index_put"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask waits for the device"
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU does them; what it would wait for torch does on a CPU, too, and a mode sees it."""
    steps = 0
    gradients = BatchedSteps._gradients

    def watched(steps_of_all: Any, batches: torch.Tensor) -> None:
        nonlocal steps
        with NeverWaiting():
            gradients(steps_of_all, batches)
        steps += 1

    with pytest.raises(AssertionError, match="waits for the device"), NeverWaiting():
        torch.ones(3)[torch.tensor([True, False, True])].sum().item()
    monkeypatch.setattr(BatchedSteps, "_gradients", watched)
    monkeypatch.setattr(AugmentedSamples, "_cut", AugmentedSamples._gathered)
    run = Run(tiny, more=AUGMENTED)
    assert steps == run.results[0].steps > 0
    monkeypatch.undo()
    monkeypatch.setattr(BatchedSteps, "_gradients", watched)
    with pytest.raises(AssertionError, match="waits for the device"):
        Run(tiny, more=AUGMENTED)  # a CPU's way to cut images


def test_a_divergence_names_its_cnn(tiny: Path) -> None:
    with pytest.raises(DivergedError, match=r"phase local: .*subdomain [0-3]"):
        Run(tiny, optimizer="sgd", learning_rate=1e30, schedule="constant", epochs=3)


def test_cnns_of_one_shape_are_a_group(tiny: Path) -> None:
    shapes = {0: (1, 4, 4), 1: (1, 4, 3), 4: (1, 4, 4), 9: (1, 4, 3)}

    assert groups(shapes, batched=True) == [[0, 4], [1, 9]]
    assert groups(shapes, batched=False) == [[0], [1], [4], [9]]


@pytest.mark.parametrize(
    ("setting", "device", "replicas", "name", "expected"),
    [
        ("auto", "cpu", 1, "vgg1", False),
        ("auto", "cuda:0", 1, "vgg1", True),
        (True, "cpu", 1, "resnet8", True),
        (False, "cuda:0", 1, "vgg1", False),
        (True, "cpu", 2, "vgg1", False),
        ("auto", "cuda:0", 1, "mine:cnn", False),
    ],
)
def test_who_trains_together(setting: Any, device: str, replicas: int, name: str, expected: bool) -> None:
    assert trains_batched(Config(batched=setting, model={"name": name}), device, replicas) is expected
