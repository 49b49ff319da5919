"""What ends a job: an error that all ranks have agreed on, in order; any other on one rank, by an abort."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from hpcdd.cli import main
from hpcdd.core.errors import (
    DivergedError,
    FailedRunsError,
    InUseError,
    RunError,
    StopRequest,
    UserError,
    WriteError,
    agreed,
)
from hpcdd.mpi import communicator, failure
from hpcdd.mpi.communicator import Comm, world


class Aborted(BaseException):
    """In the place of the end of all processes."""


class OneOfTwo(Comm):
    """This process as one rank of two; what it would send is not sent."""

    def __init__(self, rank: int) -> None:
        super().__init__(world().mpi)
        self.rank, self.size = rank, 2

    def abort(self, exit_code: int) -> None:
        raise Aborted(exit_code)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], int]:
    """Runs a command that ends with an error on one rank of two: its exit code, negative for an abort."""

    def run(rank: int, error: BaseException) -> int:
        def work(*_: object) -> None:
            raise error

        monkeypatch.setattr(communicator, "world", lambda: OneOfTwo(rank))
        monkeypatch.setattr(failure, "_DEFERENCE", 0.0)
        try:
            return main._run_on_all_ranks(work, [])
        except Aborted as aborted:
            (code,) = aborted.args
            return -int(code)

    return run


def by_all(error: UserError | RunError | StopRequest, ranks: int = 2) -> UserError | RunError | StopRequest:
    error.agreed = ranks
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("wrong"), 2),
        (WriteError("full"), 74),
        (InUseError("taken"), 2),
        (FailedRunsError("two"), 1),
        (RunError("nan", 3), 3),
        (StopRequest(signal.SIGTERM, "local"), 75),
        (StopRequest(signal.SIGINT, "local"), 130),
    ],
    ids=repr,
)
def test_what_all_have_agreed_on_root_reports_once(
    job: Callable[[int, BaseException], int],
    error: UserError,
    code: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert job(0, by_all(error)) == code
    assert capfd.readouterr().err == f"hpcdd: {error}\n"
    assert job(1, by_all(error)) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("no such module"), 2, ": no such module\n"),
        (WriteError("full"), 74, ": full\n"),
        (DivergedError("nan"), 3, ": nan\n"),
        (KeyboardInterrupt(), 130, ": interrupted\n"),
    ],
    ids=repr,
)
def test_a_mistake_on_one_rank_ends_the_job_with_its_message(
    job: Callable[[int, BaseException], int],
    rank: int,
    error: BaseException,
    code: int,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert job(rank, error) == -code
    said = capfd.readouterr().err
    assert said.startswith(f"hpcdd: rank {rank} of 2 on ")
    assert said.endswith(message)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("odd"),
        RuntimeError("odd"),
        KeyError("missing"),
        OSError("unplugged"),
        MemoryError("none left"),
        SystemExit(0),
        StopIteration("over"),
        GeneratorExit("closed"),
        RunError("nan", 3),
        StopRequest(15, "local"),
    ],
    ids=repr,
)
def test_anything_else_ends_it_with_a_traceback(
    job: Callable[[int, BaseException], int], error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    assert job(1, error) == -1
    said = capfd.readouterr().err
    assert said.startswith("hpcdd: rank 1 of 2 on ")
    assert said.count("Traceback") == 1
    assert type(error).__name__ in said


def test_the_job_ends_even_if_the_message_can_not_be_made(job: Callable[[int, BaseException], int]) -> None:
    class BrokenError(UserError):
        def __str__(self) -> str:
            raise MemoryError

    assert job(1, BrokenError()) == -1


def test_what_a_group_of_ranks_has_agreed_on_is_one_ranks_matter_to_the_job(
    job: Callable[[int, BaseException], int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert job(1, by_all(UserError("wrong"), ranks=1)) == -2
    assert ": wrong\n" in capfd.readouterr().err


def test_the_agreements_say_that_they_are_some() -> None:
    comm = world()

    def fail() -> None:
        raise WriteError("full")

    for agreement in (comm.on_root, comm.on_all):
        with pytest.raises(WriteError) as caught:
            agreement(fail)
        assert caught.value.agreed == comm.size == 1
    error = agreed([None, (UserError, "odd", False), None])
    assert error is not None
    assert (error.agreed, str(error)) == (3, "odd (rank 1)")
    assert UserError("odd").agreed == 0


def test_refuse_raises_roots_error_or_nothing() -> None:
    comm = world()
    comm.refuse(None)
    with pytest.raises(UserError, match="^odd$") as caught:
        comm.refuse(UserError("odd"))
    assert caught.value.agreed == 1
