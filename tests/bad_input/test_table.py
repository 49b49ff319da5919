"""Every row of the table, in this process: exit code, the exact message, nothing else, and quickly."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from hpcdd import cli, mesh

from .outcome import normalised, printed, snapshot
from .row import Row, write_good
from .table import TABLE


def test_the_table_is_large_and_names_each_row_once() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE) >= 60


@pytest.fixture(autouse=True)
def _this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends a whole job would end the tests."""
    monkeypatch.setattr(cli, "_fail", lambda _comm, text, _code: pytest.fail(text))
    monkeypatch.setattr(mesh, "visible_gpus", list)  # torch asks once for them, whatever the environment says later


@pytest.fixture(autouse=True)
def _modules_are_forgotten() -> None:
    """Modules of rows are imported anew."""
    for name in [name for name in sys.modules if name.startswith("mine_")]:
        del sys.modules[name]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_wrong_input(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m hpcdd` does
    for name, value in row.variables.items():
        monkeypatch.setenv(name, value)
    write_good(Path("good.h5"))
    row.make()
    before, start = snapshot(tmp_path), time.perf_counter()
    exit_code = cli.main(row.words)
    assert time.perf_counter() - start < 5
    assert normalised(capsys.readouterr().err, tmp_path) == printed(row.message)
    assert exit_code == row.exit_code
    assert snapshot(tmp_path) == before
