"""What ends a phase, what is recorded of it, and what becomes of the run directory."""

from __future__ import annotations

import json
import signal
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcdd.config.schema import Config
from hpcdd.core.errors import RunError, StopRequest, UserError
from hpcdd.mpi.communicator import Comm
from hpcdd.mpi.stop import Stop
from hpcdd.runs import resume
from hpcdd.runs.context import prepare
from hpcdd.runs.failure_policy import FailurePolicy
from hpcdd.runs.phase_timer import PhaseTimer
from hpcdd.runs.progress.display import Display
from hpcdd.runs.resume import Job
from hpcdd.runs.run_directory import RunDirectory
from hpcdd.runs.session import RunSession, open_session
from hpcdd.training.status import Status

from ..thread_ranks import ThreadChannel, ThreadComm, on_ranks

STATUS = Status("local", 1, 1, 2, 0.5, 0.7, 0.6, None, None, 0.1, 3.0, 100.0)


def session_of(comm: Comm, stop: Stop | None = None, *, folder: Path = Path(), **job: Any) -> RunSession:
    """One that has what phases and their ends need, on any ranks; it closes nothing."""
    job_ = SimpleNamespace(**{"record": None, "config": SimpleNamespace(output=None), "study": False, **job})
    return RunSession(
        context=cast(Any, SimpleNamespace(comm=comm, stop=stop, job=job_)),
        storage=cast(Any, SimpleNamespace(directory=RunDirectory(folder))),
        checkpoints=cast(Any, None),
        timer=PhaseTimer(0.0, 0.0),
        failures=FailurePolicy(comm, stop.wanted if stop else lambda: False, study=job_.study),
        display=Display(),
        telemetry=cast(Any, None),
        hooks=cast(Any, None),
        tracer=None,
        close=lambda: None,
    )


# -- phases ------------------------------------------------------------------------------------------------------------


def test_the_agreement_at_the_end_of_a_phase_is_no_message_of_the_phase(one_rank: Comm) -> None:
    """Or the local phase would not be one without messages."""
    session = session_of(one_rank, Stop(one_rank, one_rank.side_channel()), study=True)
    with session.phase("local"):
        pass
    assert one_rank.traffic["local"].calls == 0
    assert one_rank.traffic["agreement"].calls > 0
    assert set(session.timer.seconds) == {"start", "local"}
    assert one_rank.phase_name == "start"


def test_a_phase_that_an_exception_ends_is_not_recorded_and_is_named_as_its_place(one_rank: Comm) -> None:
    session = session_of(one_rank, Stop(one_rank, one_rank.side_channel()))
    with pytest.raises(ZeroDivisionError), session.phase("gather"):
        raise ZeroDivisionError
    assert set(session.timer.seconds) == {"start"}
    assert one_rank.phase_name == "gather"
    assert "agreement" not in one_rank.traffic, "the other ranks are not waited for"


@pytest.mark.parametrize("independent", [False, True])
def test_a_request_to_stop_is_kept_until_all_ranks_are_at_the_end_of_the_phase(independent: bool) -> None:
    letters: list[deque[Any]] = [deque() for _ in range(3)]

    reached: set[int] = set()

    def rank(comm: ThreadComm) -> str:
        stop = Stop(comm, cast(Any, ThreadChannel(comm.rank, letters)))
        session = session_of(comm, stop)

        def train() -> None:
            if comm.rank == 2:
                stop._on_signal(signal.SIGTERM, None)
                stop.check()
            reached.add(comm.rank)

        with pytest.raises(StopRequest) as raised, session.phase("local", independent=independent):
            train()
        assert raised.value.agreed == comm.size
        assert set(session.timer.seconds) == {"start"}
        return str(raised.value)

    assert set(on_ranks(3, rank)) == {"asked to stop by SIGTERM in phase local; the run is not complete"}
    assert reached == {0, 1}


def with_a_typo_on_one_rank(comm: ThreadComm, *, independent: bool) -> None:
    session = session_of(comm, Stop(comm, cast(Any, ThreadChannel(comm.rank, [deque(), deque()]))), study=True)
    with session.phase("local", independent=independent):
        if comm.rank == 1:
            raise UserError("a typo")


def test_in_a_study_an_exception_of_a_rank_for_which_none_waits_ends_the_run_on_all() -> None:
    def rank(comm: ThreadComm) -> str:
        with pytest.raises(RunError) as raised:
            with_a_typo_on_one_rank(comm, independent=True)
        assert raised.value.agreed == comm.size
        return str(raised.value)

    first, second = on_ranks(2, rank)
    assert first == second
    assert first.endswith(": a typo")


def test_in_a_study_an_exception_of_a_rank_for_which_others_wait_is_its_own() -> None:
    with pytest.raises(UserError, match="^a typo$"):
        on_ranks(2, lambda comm: with_a_typo_on_one_rank(comm, independent=False))


# -- what a request to stop says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "remedy"), [(False, "`hpcdd train --resume --output {}`"), (True, "the same command")]
)
def test_a_request_to_stop_says_why_it_came_and_how_to_resume(
    one_rank: Comm, config: Config, monkeypatch: pytest.MonkeyPatch, study: bool, remedy: str
) -> None:
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)

    def train(session: RunSession) -> None:
        signal.raise_signal(signal.SIGTERM)
        session.hooks.make(independent=True).step()
        pytest.fail("the training goes on")

    with (
        pytest.raises(StopRequest) as raised,
        open_session(prepare(one_rank, Job(config, print_only=False, study=study))) as session,
        session.stoppable(),
        session.phase("local", independent=True),
    ):
        train(session)
    path = Path(str(config.output))
    assert str(raised.value) == (
        "asked to stop by SIGTERM in phase local; the run is not complete "
        f"(terminated: preempted, cancelled or out of time); resume it with {remedy.format(path)}"
    )
    assert (raised.value.agreed, raised.value.exit_code) == (one_rank.size, 75)
    directory = RunDirectory(path)
    assert "asked to stop by SIGTERM" in directory.log(0).read_text()
    assert directory.condition() == "unfinished"
    assert not directory.lock.exists()


def test_a_request_to_stop_before_there_is_a_run_directory_leaves_none(
    one_rank: Comm, config: Config, tmp_path: Path
) -> None:
    context = prepare(one_rank, Job(config, print_only=False))
    context.stop.listen()
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(StopRequest) as raised, open_session(context):
        pytest.fail("the work begins")
    assert raised.value.agreed == one_rank.size
    assert list(tmp_path.iterdir()) == []


# -- the run directory -------------------------------------------------------------------------------------------------


def test_while_it_is_open_the_directory_is_locked_watched_and_takes_ends_of_epochs(
    one_rank: Comm, config: Config
) -> None:
    with open_session(prepare(one_rank, Job(config, print_only=False))) as session:
        directory = session.directory
        assert directory.lock.exists()
        assert [path.name for path in directory.heartbeats.iterdir()] == ["rank-0000"]
        session.telemetry.epochs([STATUS], earlier=True)  # the file of the earlier job is replaced
        session.telemetry.status(replace(STATUS, epoch=1, fraction=0.75))
        session.telemetry.epochs([replace(STATUS, epoch=2)])
    assert not directory.lock.exists()
    assert list(directory.heartbeats.iterdir()) == []
    lines = [json.loads(line) for line in directory.metrics.read_text().splitlines()]
    assert [(line["phase"], line["subdomain"], line["epoch"]) for line in lines] == [("local", 1, 1), ("local", 1, 2)]
    assert directory.condition() == "unfinished"


def raise_in(comm: Comm, job: Job, error: UserError) -> RunDirectory:
    """What is left of the run directory, in which ``error`` was found while the data set was read."""

    def read(directory: RunDirectory) -> None:
        (directory.checkpoints / "local/0000").mkdir(parents=True)
        raise error

    with (
        pytest.raises(UserError) as raised,
        open_session(prepare(comm, job)) as session,
        session.discarding(),
    ):
        read(session.directory)
    assert raised.value is error
    return session.directory


def agreed_error(comm: Comm) -> UserError:
    error = UserError("a pixel is not a number")
    error.agreed = comm.size
    return error


def test_of_a_new_run_that_finds_a_mistake_nothing_is_left(
    one_rank: Comm, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = config.model_copy(update={"output": None})
    directory = raise_in(one_rank, Job(config, print_only=False), agreed_error(one_rank))
    assert directory.path == Path("runs/run-001")
    assert list(tmp_path.iterdir()) == []


def test_other_runs_stay(one_rank: Comm, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/run-001").mkdir(parents=True)
    (tmp_path / "runs/run-001/precious").touch()
    config = config.model_copy(update={"output": None})
    raise_in(one_rank, Job(config, print_only=False), agreed_error(one_rank))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == [
        "runs", "runs/run-001", "runs/run-001/precious",
    ]  # fmt: skip


def test_a_folder_that_the_user_named_stays_and_is_empty(one_rank: Comm, config: Config) -> None:
    directory = raise_in(one_rank, Job(config, print_only=False), agreed_error(one_rank))
    assert list(directory.path.iterdir()) == []


def test_a_run_that_is_resumed_loses_nothing(one_rank: Comm, config: Config) -> None:
    with open_session(prepare(one_rank, Job(config, print_only=False))) as session:
        identity = session.storage.record["run"]
    job = resume.job_of(config)
    assert job.record is not None
    directory = raise_in(one_rank, job, agreed_error(one_rank))
    record = directory.record()
    assert record is not None
    assert record["run"] == identity
    assert (directory.checkpoints / "local/0000").is_dir()
    assert not directory.lock.exists()


def test_the_files_of_a_rank_are_removed_once_it_has_closed_them(tmp_path: Path) -> None:
    folder = tmp_path / "runs/run-001"
    closed: list[tuple[int, bool]] = []

    def rank(comm: ThreadComm) -> None:
        session = session_of(comm, folder=folder)
        vars(session)["close"] = lambda: closed.append((comm.rank, (folder / "config.yaml").exists()))
        with pytest.raises(UserError), session.discarding():
            raise agreed_error(comm)

    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    on_ranks(3, rank)
    assert sorted(closed[:2]) == [(1, True), (2, True)]
    assert closed[2:] == [(0, False)]
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_that_one_rank_alone_has_found_removes_nothing(tmp_path: Path) -> None:
    """Others may be writing; the job ends by it."""

    def rank(comm: ThreadComm) -> None:
        session = session_of(comm, folder=tmp_path)
        if comm.rank == 1:
            with pytest.raises(UserError), session.discarding():
                raise UserError("a typo")

    (tmp_path / "config.yaml").touch()
    on_ranks(2, rank)
    assert (tmp_path / "config.yaml").exists()
