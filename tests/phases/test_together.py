"""CNNs that are trained together become what each becomes by itself, and nothing of theirs is lost on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcdd.checkpoints.keeper import Costs, Journal, Keeper, NoKeeper
from hpcdd.config import CheckpointSettings, Config
from hpcdd.data.reading import BoxReader
from hpcdd.errors import DivergedError, StopRequest
from hpcdd.mesh import Place
from hpcdd.phases.local import LocalResult, groups, train_local_cnns, trains_together
from hpcdd.phases.status import Hooks, Status
from hpcdd.problem import pose
from hpcdd.traffic import Ledger

from .test_training import stop_at

ALL = (0, 1, 2, 3)


class Run:
    """One local phase on the tiny data set; every CNN's statuses, by subdomain."""

    def __init__(
        self,
        tiny: Path,
        folder: Path | None = None,
        *,
        together: bool = True,
        step: Callable[[], None] = lambda: None,
        subdomains: tuple[int, ...] = ALL,
        journal: Journal | None = None,
        every: str = "1000 epochs",
        **local: Any,
    ) -> None:
        settings = {"epochs": 2, "batch_size": 50, "together": together, "learning_rate": 1e-3, **local}
        config = Config(
            data={"file": str(tiny), "validation_fraction": 0.2}, model={"name": "vgg1", "width": 8}, local=settings
        )
        problem, place = pose(config), Place(0, "here", "cpu", "cpu", 1, subdomains)
        samples = problem.read(BoxReader(problem.info.path), subdomains, "cpu")
        self.journal = journal or Journal(print)
        self.statuses: dict[int, list[Status]] = {}
        self.order: list[tuple[int, int]] = []

        def keeper(subdomain: int) -> NoKeeper:
            if folder is None:
                return NoKeeper()
            return Keeper(
                folder / str(subdomain),
                "a run",
                CheckpointSettings(every=every),
                self.journal,
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

        def history(found: object) -> None:
            for status in found:  # type: ignore[attr-defined]
                self.statuses.setdefault(status.subdomain, []).append(status)

        hooks = Hooks(step=step, epoch=take, history=history)
        self.results: dict[int, LocalResult] = {}
        self.results = train_local_cnns(config, place, samples, 3, problem.widths.local_width, hooks, keepers=keeper)

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
    together, alone = Run(tiny, **settings), Run(tiny, together=False, **settings)
    together.close_to(alone)
    assert together.order == [(s, epoch) for epoch in (1, 2) for s in ALL]
    assert alone.order == [(s, epoch) for s in ALL for epoch in (1, 2)]
    assert {r.steps for r in together.results.values()} == {r.steps for r in alone.results.values()}


def test_who_trains_with_it_changes_a_cnn_by_rounding_only(tiny: Path) -> None:
    Run(tiny, subdomains=(1, 3)).close_to(Run(tiny, subdomains=(1, 3), together=False))


@pytest.mark.parametrize("step", [1, 5, 9])
@pytest.mark.parametrize(("first", "then"), [(True, True), (True, False), (False, True)])
def test_a_stopped_training_goes_on_in_either_way(
    tiny: Path, tmp_path: Path, step: int, first: bool, then: bool
) -> None:
    with pytest.raises(StopRequest):
        Run(tiny, tmp_path, together=first, step=stop_at(step))
    on, whole = Run(tiny, tmp_path, together=then), Run(tiny)
    on.close_to(whole)
    if first and then:
        on.same_as(whole)


def test_cnns_at_different_places_go_on_in_groups(tiny: Path, tmp_path: Path) -> None:
    """A job was killed while it wrote: some checkpoints are a few steps older."""
    for subdomains, step in (((0,), 3), ((1, 2), 5)):
        with pytest.raises(StopRequest):
            Run(tiny, tmp_path, subdomains=subdomains, step=stop_at(step))
    on = Run(tiny, tmp_path)
    on.close_to(Run(tiny, together=False))
    assert [s for s, epoch in on.order if epoch == 2] == [3, 0, 1, 2]


def test_who_stops_early_leaves_and_the_others_go_on(tiny: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 8, "early_stopping": 1, "learning_rate": 3e-3}
    together, alone = Run(tiny, tmp_path, **settings), Run(tiny, together=False, **settings)
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
    journal = Journal(print)
    Run(tiny, tmp_path, journal=journal)
    costs = [journal.earlier["local", s] for s in ALL]
    assert {cost.steps for cost in costs} == {3}
    assert sum((cost for cost in costs), Costs()).seconds < wall


def test_a_divergence_names_its_cnn(tiny: Path) -> None:
    with pytest.raises(DivergedError, match=r"phase local: .*subdomain [0-3]"):
        Run(tiny, optimizer="sgd", learning_rate=1e30, schedule="constant", epochs=3)


def test_cnns_of_one_shape_are_a_group(tiny: Path) -> None:
    shapes = {0: (1, 4, 4), 1: (1, 4, 3), 4: (1, 4, 4), 9: (1, 4, 3)}

    assert groups(shapes, together=True) == [[0, 4], [1, 9]]
    assert groups(shapes, together=False) == [[0], [1], [4], [9]]


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
    assert trains_together(Config(local={"together": setting}, model={"name": name}), device, replicas) is expected
