"""What a rank prints, and with which code it ends the job, where an exception is its own."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from hpcdd.core.errors import DivergedError, UserError, WriteError
from hpcdd.mpi.failure import fail

from ..thread_ranks import ThreadComm
from ..waiting import Clock


class EndedError(Exception):
    """In the place of the end of the process."""


class OneOf(ThreadComm):
    """A rank whose end the test sees."""

    def __init__(self, rank: int) -> None:
        super().__init__(rank, 4, None, [])  # type: ignore[arg-type]

    def abort(self, exit_code: int) -> None:
        raise EndedError(exit_code)


def failed(rank: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> tuple[int, float]:
    """The exit code, and for how many seconds the rank has left the word to others."""
    clock = Clock()
    begin = clock.now
    monkeypatch.setattr(time, "sleep", clock.wait)
    try:
        raise error
    except BaseException as raised:
        with pytest.raises(EndedError) as ended:
            fail(OneOf(rank), raised)
    return ended.value.args[0], clock.now - begin - 0.5


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("a typo"), 2, "a typo"),
        (WriteError("x.h5 can't be written"), 74, "x.h5 can't be written"),
        (DivergedError("the loss is nan"), 3, "the loss is nan"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (UserError("a \x1b[2J name"), 2, r"a \x1b[2J name"),
    ],
    ids=repr,
)
def test_what_a_user_can_mend_is_one_line_of_this_rank(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failed(2, error, monkeypatch)[0] == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"hpcdd: rank 2 of 4 on \S+: {re.escape(text)}\n", err)


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), SystemExit(0), MemoryError()], ids=repr)
def test_a_defect_is_reported_with_its_place(
    error: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails the job even where it is an exit with code 0."""
    assert failed(1, error, monkeypatch) == (1, 0.0)
    err = capsys.readouterr().err
    assert re.match(r"hpcdd: rank 1 of 4 on \S+ failed in phase start\nTraceback", err)
    assert type(error).__name__ in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("rank", "error", "turn"),
    [
        (0, DivergedError("nan"), 0),
        (1, DivergedError("nan"), 1),
        (0, DivergedError("heard", heard=True), 1),
        (3, DivergedError("heard", heard=True), 2),
        (0, KeyboardInterrupt(), 0),
        (3, KeyboardInterrupt(), 1),
        (3, UserError("a typo"), 0),
    ],
    ids=repr,
)
def test_of_ranks_that_say_the_same_the_one_that_knows_most_comes_first(
    rank: int, error: BaseException, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failed(rank, error, monkeypatch)[1] == pytest.approx(2.0 * turn)


def test_the_job_ends_also_where_nothing_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, _: str) -> Any:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    assert failed(1, UserError("a typo"), monkeypatch)[0] == 2
