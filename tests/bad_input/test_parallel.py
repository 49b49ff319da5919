"""Rows of every kind on ranks, and some as jobs: the message stands there once, whatever the number of ranks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..launchers import Launcher, find
from ..ranks.test_resume import Job, run_chain
from ..waiting import LIMIT
from .outcome import check_message, snapshot
from .row import Row, write_good
from .table import TABLE

ROWS = [row for row in TABLE if row.mpirun and not row.variables]
JOBS = [row for row in TABLE if row.mpirun and row.variables]  # one process has one environment
JOBS += [row for row in ROWS if row.name in ("unknown command", "several mistakes at once")]


@dataclass(frozen=True)
class Outcome:
    """What came of a row: its folder before and after, exit code, and what all ranks said."""

    folder: Path
    before: dict[str, bytes | None]
    after: dict[str, bytes | None]
    code: int
    said: str


@pytest.fixture(scope="module", params=[3, pytest.param(1, marks=pytest.mark.slow)])
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """By name of the row; the ranks are started once for all rows."""
    ranks, folder = request.param, tmp_path_factory.mktemp("rows")
    folders = [folder / str(number) for number in range(len(ROWS))]
    jobs: list[Job] = []
    for row, row_folder in zip(ROWS, folders, strict=True):
        row_folder.mkdir()
        with contextlib.chdir(row_folder):
            write_good(Path("good.h5"))
            row.make()
        jobs.append((ranks, list(row.arguments), None))
    before = [snapshot(row_folder) for row_folder in folders]
    codes, errors = run_chain(next(iter(find().values())), folder, jobs, ranks, folders)
    after = [snapshot(row_folder) for row_folder in folders]
    names = [row.name for row in ROWS]
    return dict(zip(names, map(Outcome, folders, before, after, codes, errors), strict=True))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_wrong_input_on_ranks(outcomes: dict[str, Outcome], row: Row) -> None:
    outcome = outcomes[row.name]
    check_message(outcome.said, outcome.folder, row)
    assert outcome.code == row.exit_code
    assert outcome.after == outcome.before


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("row", JOBS, ids=lambda row: row.name)
def test_a_wrong_input_under_mpirun(
    mpi: Launcher, row: Row, ranks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(mpi, row, ranks, tmp_path, monkeypatch)


def test_so_with_every_mpi(every_mpi: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = [row for row in ROWS if row.name == "several mistakes at once"]
    check(every_mpi, row, 3, tmp_path, monkeypatch)


def check(mpi: Launcher, row: Row, ranks: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write_good(Path("good.h5"))
    row.make()
    before = snapshot(folder)
    process = mpi.start(ranks, ["-m", "hpcdd", *row.arguments], folder, **row.variables)
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in row.message.splitlines()]
    rest = process.communicate(timeout=LIMIT)[1]  # Open MPI says that a process has ended with another code than 0
    check_message("".join(lines), folder, row)
    assert "hpcdd: " not in rest
    assert "Traceback" not in rest
    assert process.returncode == row.exit_code
    assert snapshot(folder) == before
