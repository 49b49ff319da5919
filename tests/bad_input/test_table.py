"""Every row of the table, in this process: exit code, the message, and nothing else."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import pytest

from hpcdd.cli import main
from hpcdd.decomposition import rank_layout
from hpcdd.mpi import failure

from .outcome import check_message, snapshot
from .row import Row, write_good
from .table import TABLE


def test_the_table_is_large_and_names_each_row_once() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE) >= 60


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ("local.epochs is 0, but that is too few; use 1 or more", True),
        ("local.epochs is 0, which is too few; 1 or more is needed", True),
        ("local.epochs is 1, which is too few; use 1 or more", False),
        ("epochs is 0, which is too few; use 1 or more", False),
        ("local.epochs is 0, which is too few, use 1 or more", False),
        ("local.epochs is 0, which is too few; use 1 or more\nhpcdd: more", False),
        ("local.epochs is 0: no such file or folder; 1", False),
    ],
)
def test_a_message_may_be_rephrased_but_states_the_same(said: str, same: bool, tmp_path: Path) -> None:
    row = Row("a row", (), "local.epochs is 0, which is too few; use 1 or more")
    with contextlib.nullcontext() if same else pytest.raises(AssertionError):
        check_message(f"hpcdd: {said}\n", tmp_path, row)


@pytest.fixture(autouse=True)
def _this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends a whole job would end the tests."""
    monkeypatch.setattr(failure, "fail", lambda _comm, text, _code: pytest.fail(text))
    monkeypatch.setattr(
        rank_layout, "visible_gpus", list
    )  # torch asks once for them, whatever the environment says later


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
    before, start = snapshot(tmp_path), time.process_time()
    exit_code = main.main(row.arguments)
    assert time.process_time() - start < 60  # CPU seconds; the longest takes one
    check_message(capsys.readouterr().err, tmp_path, row)
    assert exit_code == row.exit_code
    assert snapshot(tmp_path) == before
