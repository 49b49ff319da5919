"""Who takes which run, and who waits for another one's result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcdd.artifacts.evaluation_cache import EvaluationCache
from hpcdd.config.schema import Config
from hpcdd.runs.reuse import identity
from hpcdd.studies import run_queue
from hpcdd.studies.matrix import Combination
from hpcdd.studies.planned_runs import PlannedRun, plan_runs
from hpcdd.studies.rank_groups import stages
from hpcdd.studies.run_queue import Queue
from hpcdd.studies.study_directory import StudyDirectory
from hpcdd.studies.study_request import StudyRun


def entry(name: str, ranks: int = 1, **results: str) -> PlannedRun:
    return PlannedRun(StudyRun(Combination(name, {}, {}), Config()), ranks, 4, results)


def record(seed: int, replicas: int = 1) -> dict[str, Any]:
    config = Config(seed=seed).model_dump(mode="json")
    return {"config": config, "dataset": "f", "blocks": 16, "replicas": replicas, "workers": 4}


L, M, G = identity("local", record(1)), identity("local", record(2)), identity("global", record(2))


def complete(directory: StudyDirectory, name: str, phase: str, record: dict[str, Any]) -> None:
    """The phase of a run has come to its end."""
    run = directory.run(name)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    run.write_record({**record, "format": 1, "hpcdd": "0", "run": name, "device": "cpu", "complete": False})
    EvaluationCache(run.checkpoints, name).add(phase, {}, {})


def test_groups_of_one_size_work_at_one_time_the_largest_first() -> None:
    entries = [entry("a", 2), entry("b", 4), entry("c", 2), entry("d", 2), entry("e", 4)]
    first, second = stages(entries, 9)
    assert (first.size, first.groups, [e.run.id for e in first.entries]) == (4, 2, ["b", "e"])
    assert (second.size, second.groups, [e.run.id for e in second.entries]) == (2, 3, ["a", "c", "d"])
    assert [first.group(rank) for rank in range(9)] == [0, 0, 0, 0, 1, 1, 1, 1, None]
    assert [second.group(rank) for rank in range(9)] == [0, 0, 1, 1, 2, 2, None, None, None]


def test_every_run_is_taken_once(tmp_path: Path) -> None:
    entries = [entry(name) for name in "abc"]
    directory = StudyDirectory(tmp_path)
    one, other = (Queue(directory, "job", entries, entries) for _ in range(2))
    claims = [one.take(), other.take(), one.take(), other.take(), one.take()]
    assert [claim.entry.run.id if claim else None for claim in claims] == ["a", "b", "c", None, None]
    assert not one.left
    other_job = Queue(directory, "another job", entries, entries).take()
    assert other_job is not None
    assert other_job.entry.run.id == "a"


def test_who_needs_a_result_that_is_being_trained_does_something_else(tmp_path: Path) -> None:
    entries = [entry("a", local=L), entry("b", local=L), entry("c", local=M, **{"global": G})]
    entries.append(entry("d", **{"global": G}))
    directory = StudyDirectory(tmp_path)
    one, other = (Queue(directory, "job", entries, entries) for _ in range(2))
    first, second = one.take(), other.take()
    assert first is not None
    assert second is not None
    assert (first.entry.run.id, first.trains) == ("a", (L,))
    assert (second.entry.run.id, second.trains) == ("c", (M, G))
    assert one.take() is None
    assert one.left
    complete(directory, "a", "dnn", record(1, replicas=2))  # trained by another job, and equal to rounding only
    assert one.take() is None
    complete(directory, "a", "dnn", record(1))
    third = one.take()
    assert third is not None
    assert (third.entry.run.id, third.trains, third.sources) == ("b", (), {"local": tmp_path / "runs/a"})
    other.end(second)  # it has failed before the global CNN
    fourth = other.take()
    assert fourth is not None
    assert (fourth.entry.run.id, fourth.trains, fourth.sources) == ("d", (G,), {})
    assert [q.take() for q in (one, other)] == [None, None]
    assert not other.left


def test_claims_are_removed_at_the_end(tmp_path: Path) -> None:
    directory = StudyDirectory(tmp_path)
    for job in ("a", "b"):
        Queue(directory, job, [], [])
    run_queue.close(directory, "a")
    assert [path.name for path in directory.claims.iterdir()] == ["b"]
    run_queue.close(directory, "b")
    assert not directory.claims.exists()


RECORD: dict[str, Any] = {
    "config": Config().model_dump(mode="json"),
    "dataset": "f",
    "blocks": 16,
    "replicas": 1,
    "workers": 4,
}


def changed(field: str, value: object) -> dict[str, Any]:
    section, _, key = field.rpartition(".")
    if field in RECORD:
        return {**RECORD, field: value}
    config = RECORD["config"]
    return {
        **RECORD,
        "config": {**config, section: {**config[section], key: value}} if section else {**config, key: value},
    }


@pytest.mark.parametrize(
    ("field", "value", "phases"),
    [
        ("seed", 1, ("local", "global")),
        ("dataset", "other", ("local", "global")),
        ("data.subset", 100, ("local", "global")),
        ("data.file", "elsewhere.h5", ()),
        ("data.storage", "memory", ()),
        ("augmentation.translate", 1, ("local", "global")),
        ("model.width", 8, ("local", "global")),
        ("model.local_width", 8, ("local",)),
        ("decomposition.overlap", 1, ("local",)),
        ("local.epochs", 9, ("local",)),
        ("baseline.epochs", 9, ("global",)),
        ("aggregation.epochs", 9, ()),
        ("coherent.epochs", 9, ()),
        ("replicas", 2, ("local",)),
        ("workers", 2, ("global",)),
        ("shared_batches", "fast", ("global",)),  # four workers share its batches; a local CNN has one rank
        ("batched", True, ("local",)),
        ("batched", False, ()),  # on a CPU, as auto has it
        ("reduction", "fast", ()),
        ("name", "other", ()),
    ],
)
def test_the_identity_of_a_result_is_what_it_depends_on(field: str, value: object, phases: tuple[str, ...]) -> None:
    other = changed(field, value)
    changed_phases = [phase for phase in ("local", "global") if identity(phase, other) != identity(phase, RECORD)]
    assert changed_phases == list(phases)


@pytest.mark.parametrize(("setting", "device"), [(True, "cpu"), ("auto", "cuda")])
def test_of_cnns_that_are_trained_together_it_counts_which_ones(setting: object, device: str) -> None:
    first = {**changed("batched", setting), "device": device}
    assert identity("local", {**first, "workers": 2}) != identity("local", first)
    assert identity("global", {**first, "device": "cpu"}) == identity("global", {**RECORD, "device": "cpu"})


def test_only_what_several_runs_need_is_shared() -> None:
    def run(name: str, **changes: object) -> StudyRun:
        return StudyRun(Combination(name, {}, {}), Config.model_validate({"data": {"subset": 100}, **changes}))

    runs = [run("a"), run("b", coherent={"epochs": 1}), run("c", seed=1), run("d", baseline={"enabled": True})]
    planned = {entry.run.id: (entry.ranks, dict(entry.results)) for entry, _ in plan_runs(runs, None, 3)}
    (local,) = {results["local"] for name, (_, results) in planned.items() if name != "c"}
    assert planned == {"a": (3, {"local": local}), "b": (3, {"local": local}), "c": (3, {}), "d": (3, {"local": local})}
