"""Rows of every kind as jobs: the message stands there once, whatever the number of ranks."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from ..launchers import Launcher
from .outcome import normalised, printed, snapshot
from .row import Row, write_good
from .table import TABLE

ROWS = [row for row in TABLE if row.mpirun]


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
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
    before, start, worked = snapshot(folder), time.perf_counter(), processor_seconds()
    process = mpi.start(ranks, ["-m", "hpcdd", *row.words], folder, **row.variables)
    assert process.stderr is not None
    lines = [process.stderr.readline() for _ in row.message.splitlines()]
    seconds = time.perf_counter() - start
    rest = process.communicate(timeout=60)[1]  # Open MPI says that a process has ended with another code than 0
    # The machine may be busy with something else: what counts is how long it would take on its own.
    alone = (processor_seconds() - worked) / min(ranks, len(os.sched_getaffinity(0)))
    assert normalised("".join(lines), folder) == printed(row.message), rest
    assert min(seconds, alone) < 5
    assert "hpcdd: " not in rest
    assert "Traceback" not in rest
    assert process.returncode == row.exit_code
    assert snapshot(folder) == before


def processor_seconds() -> float:
    """Of all processes that have been started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
