"""The end of a run on two ranks that are threads: what the files say, and what remains where one can't be written."""

from __future__ import annotations

import logging
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from hpcdd.artifacts import predictions
from hpcdd.artifacts.evaluation_cache import Arrays, EvaluationCache
from hpcdd.artifacts.model_file import open_model
from hpcdd.artifacts.results import Results
from hpcdd.config.schema import Config
from hpcdd.core.errors import WriteError
from hpcdd.core.seeding import WHOLE
from hpcdd.data.problem import build_problem
from hpcdd.data.reading import BoxReader
from hpcdd.decomposition.rank_layout import RankLayout, RankPlacement
from hpcdd.mpi.stop import Stop
from hpcdd.parallel.batch_shards import Flag
from hpcdd.parallel.team import Team
from hpcdd.phases.aggregation import fresh_dnn
from hpcdd.phases.local import LocalResult, create_local_cnn
from hpcdd.runs.context import RunContext
from hpcdd.runs.failure_policy import FailurePolicy
from hpcdd.runs.finalize import Trained, finalize
from hpcdd.runs.phase_timer import PhaseTimer
from hpcdd.runs.progress.display import Display
from hpcdd.runs.resume import Job, record_of
from hpcdd.runs.run_checkpoints import RunCheckpoints
from hpcdd.runs.run_directory import RunDirectory
from hpcdd.runs.run_storage import RunStorage
from hpcdd.runs.session import RunSession
from hpcdd.training.checkpoints.manager import TrainingCosts

from ..artificial import make_predictions
from ..thread_ranks import ThreadComm, on_ranks

ACCURACY: dict[str, dict[str, Any]] = {
    split: {"local": [0.5, 0.25], "average": 0.5, "majority": 0.5, "log_pool": 0.5, "dnn": 0.75}
    for split in ("train", "test")
}
GATHER = {"seconds": 0.125, "calls": 3, "bytes": 99}
DRAWING = threading.Lock()
"""Around what draws from torch's global random state."""
LOG = logging.getLogger("test of the end")


class NoSignals(Stop):
    """Nobody asks these ranks to stop."""

    def __init__(self) -> None:
        pass

    def poll(self) -> None:
        pass

    def agree(self, phase: str = "") -> None:
        pass


def arrays() -> Arrays:
    """As the attribution of the evaluations has left them on root: for 90 samples of two subdomains."""
    made = make_predictions(90, 2, strategies=("average", "majority", "log_pool", "dnn"))
    return {
        "local/decisions": made.local,
        "local/confidence": made.confidence,
        **{f"strategies/{name}": values for name, values in made.strategies.items()},
        **{f"influence/{name}/ablation": values for name, values in made.ablation.items()},
        **{f"influence/{name}/gradient": values for name, values in made.gradient.items()},
    }


def session_of(comm: ThreadComm, config: Config, folder: Path) -> RunSession:
    """Of a run whose trainings and evaluations are over."""
    placements = tuple(RankPlacement(rank, "host", "cpu", "cpu", 1, (rank,)) for rank in range(2))
    layout, problem = RankLayout(2, placements), build_problem(config)
    alone = ThreadComm(0, 1, None, [])  # type: ignore[arg-type]
    team = Team(config, layout, placements[comm.rank], comm, comm, alone, Flag())
    reader = BoxReader(problem.info.path)
    reader.bytes_read = 1000 + comm.rank
    stop = NoSignals()
    context = RunContext(
        comm, Job(config, print_only=False), problem, layout, "memory", reader, cast(Any, None), stop, team, False
    )
    directory = RunDirectory(folder)
    record = record_of(config, "this run", **context.facts, reused={"local": "/elsewhere/run-007"})
    cache = EvaluationCache(directory.checkpoints, "this run") if comm.is_root else None
    if cache is not None:
        directory.write_record(record)
        cache.arrays["dnn"] = arrays()
    storage = RunStorage(directory, LOG, record, {"dnn": {"costs": {"gather": GATHER}}} if comm.is_root else {}, cache)
    checkpoints = RunCheckpoints(directory, "this run", config.checkpoint, comm.ledger, pytest.fail)
    timer = PhaseTimer(1.0, 0.5)
    timer.seconds |= {"read": 0.5, "local": 9.0, "dnn": 2.0}
    timer.core_seconds |= {"local": 4.0 + comm.rank}
    return RunSession(
        context, storage, checkpoints, timer, FailurePolicy(comm, lambda: False, study=False),
        Display(), cast(Any, None), cast(Any, None), None, lambda: None,
    )  # fmt: skip


def trained_on(session: RunSession) -> Trained:
    """Networks with initial parameters: of rank 0 the seconds 10, of rank 1 the seconds 11."""
    context, rank = session.context, session.context.comm.rank
    problem, team = context.problem, context.team
    assert team is not None
    with DRAWING:
        cnn = create_local_cnn(context.config, rank, problem.subimage_shape(rank), 3, problem.widths.local_width)
        dnn = fresh_dnn(team, context.config.aggregation, problem.feature_widths("logits"), 3)
    local = {rank: LocalResult(cnn, {}, {}, 10.0 + rank, 5)}
    return Trained(ACCURACY, local=local, dnn=dnn, steps={"coherent_transfer": 4})


def finalized(
    config: Config, folder: Path, before: Callable[[RunSession], None] = lambda _: None
) -> list[WriteError | None]:
    """What each of the two ranks raises; ``before`` is called on each with its session."""

    def rank(comm: ThreadComm) -> WriteError | None:
        session = session_of(comm, config, folder)
        with comm.phase("local"), comm.phase("dnn"):
            pass
        with comm.phase("coherent_transfer"):
            for _ in range(8 + 4 * comm.rank):
                with comm.counted("a message", 10):
                    pass
        trained = trained_on(session)
        before(session)
        try:
            finalize(session, trained)
        except WriteError as error:
            return error
        return None

    folder.mkdir()
    return on_ranks(2, rank)


def test_the_files_of_a_complete_run(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert finalized(config, folder) == [None, None]
    directory = RunDirectory(folder)
    assert directory.condition() == "complete"
    assert not list(folder.rglob(".*"))
    assert "0.75" in capsys.readouterr().out

    results = Results.read(directory.results)
    assert results.accuracy["test"].dnn == 0.75
    assert results.seconds["local"] == [10.0, 11.0]
    assert results.core_seconds["local"] == 4.0 + 5.0
    assert results.bytes_read == [1000, 1001]
    assert results.communication["coherent_transfer"] == {
        "calls": 12, "bytes": 120, "calls_per_step": 3.0, "bytes_per_step": 30.0,
    }  # fmt: skip
    assert results.reused == {"local": "run-007"}
    assert (results.seconds["gather"], results.communication["gather"]) == (0.125, {"calls": 3, "bytes": 99})

    read = predictions.read(directory.decisions)
    assert (read.split, read.samples, len(read.rows)) == ("test", 90, 90)
    with open_model(directory.model) as model:
        states = [model.local_cnn(s).state_dict() for s in range(2)]
    for s, state in enumerate(states):  # each from the rank that owns it
        problem = build_problem(config)
        made = create_local_cnn(config, s, problem.subimage_shape(s), 3, problem.widths.local_width).state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in made.items())


def test_trainings_of_earlier_jobs_are_part_of_the_costs(config: Config, tmp_path: Path) -> None:
    def before(session: RunSession) -> None:
        rank, earlier = session.context.comm.rank, session.checkpoints.stats.earlier
        earlier["local", rank] = TrainingCosts(seconds=100.0, core_seconds=50.0, calls=1, bytes=2)
        if rank == 0:
            earlier["dnn", WHOLE] = TrainingCosts(seconds=30.0, core_seconds=20.0)
            earlier["coherent_transfer", WHOLE] = TrainingCosts(calls=100, bytes=1000, steps=32)

    assert finalized(config, tmp_path / "run", before) == [None, None]
    results = Results.read(tmp_path / "run/results.json")
    assert results.seconds["local"] == [110.0, 111.0]
    assert results.seconds["dnn"] == 32.0
    assert (results.core_seconds["local"], results.core_seconds["dnn"]) == (109.0, 20.0)
    assert results.communication["coherent_transfer"] == {
        "calls": 108, "bytes": 1080, "calls_per_step": 3.0, "bytes_per_step": 30.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["model.h5", "decisions.h5", "results.json"])
def test_a_file_that_can_not_be_written_ends_all_ranks_and_the_run_is_not_complete(
    config: Config, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "run"

    def before(session: RunSession) -> None:
        if session.context.comm.is_root:
            (folder / name).mkdir()  # which no file can replace, whoever writes it

    errors = finalized(config, folder, before)
    for error in errors:
        assert error is not None
        assert (error.agreed, error.exit_code) == (2, 74)
        assert str(error).startswith(f"{folder / name} can't be written: ")
    assert RunDirectory(folder).condition() == "unfinished"
    assert not (folder / "results.json").is_file()
    assert not list(folder.glob(".*")), "no file under a temporary name"


def test_a_full_disk_is_reported_by_all_ranks(config: Config, tmp_path: Path) -> None:
    """Here a limit on the size of files."""
    folder, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(session: RunSession) -> None:
        session.context.comm.maximum(0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    try:
        errors = finalized(config, folder, limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [str(error) for error in errors] == [f"{folder / 'model.h5'} can't be written: File too large"] * 2
    assert RunDirectory(folder).condition() == "unfinished"
    assert [path.name for path in folder.iterdir()] == ["checkpoints"]
