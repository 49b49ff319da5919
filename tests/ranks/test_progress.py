"""The live view and the lines, where a person would look at them: on a terminal, behind mpirun."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pexpect
import pytest
import yaml

from ..launchers import Launcher, started
from ..waiting import LIMIT

pytestmark = pytest.mark.slow

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def config(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    content = {
        "data": {"file": str(tiny), "validation_fraction": 0.1},
        "model": {"name": "vgg1", "width": 8},
        "local": {"epochs": 40, "batch_size": 8},
        "aggregation": {"epochs": 2, "batch_size": 16},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def on_a_terminal(mpi: Launcher, command: str, cwd: Path) -> str:
    """What a terminal of 120 columns receives while ``command`` runs in its foreground; MPIRUN stands for N = 2."""
    started[mpi.kind] += 1
    mpirun = f"{mpi.mpirun} -n 2 {sys.executable} -m hpcdd train"
    child = pexpect.spawn(
        "/bin/sh",
        ["-c", re.sub(r"MPIRUN (\S+)", rf"{mpirun} \1 --run.report false", command)],
        cwd=str(cwd),
        env={**os.environ, **mpi.environment, "TERM": "xterm-256color"},
        dimensions=(40, 120),
        encoding="utf-8",
        timeout=LIMIT,
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    assert child.before is not None
    return child.before


def test_the_live_view_shows_all_ranks_on_the_launchers_terminal(
    every_mpi: Launcher, config: Path, tmp_path: Path
) -> None:
    shown = on_a_terminal(every_mpi, f"exec MPIRUN {config} --output run", tmp_path)
    assert shown.count("\x1b[1A\x1b[2K") > 10, "it is drawn again and again, not printed"
    assert "\x1b[?25l" not in shown, "the cursor is never hidden: an aborted job could not bring it back"
    rows = ESCAPE.sub("", shown)
    for subdomain in range(4):
        epochs = {int(n) for n in re.findall(rf"local subdomain {subdomain} .*?epoch (\d+)/40", rows)}
        assert len(epochs) > 2, f"subdomain {subdomain} moved"
    assert re.search(r"DNN .*epoch 2/2  loss \d\.\d+  acc \d\.\d+  val \d\.\d+  [\d,]+/s  0:00", rows)
    assert "log-opinion pool" in rows, "the table follows"
    assert not re.search(r"^local subdomain \d  +epoch  1/40", rows, re.MULTILINE), "no lines beside the view"


def test_lines_where_the_output_is_redirected(every_mpi: Launcher, config: Path, tmp_path: Path) -> None:
    shown = on_a_terminal(every_mpi, f"MPIRUN {config} --output run --local.epochs 4 > log", tmp_path)
    assert shown == ""
    log = (tmp_path / "log").read_text()
    assert "\x1b" not in log
    for subdomain in range(4):
        assert len(re.findall(rf"^local subdomain {subdomain} .* validation .* samples/s", log, re.MULTILINE)) == 4


def test_off_prints_the_table_only(mpi: Launcher, config: Path, tmp_path: Path) -> None:
    done = mpi.hpcdd(2, ["train", config, "--progress", "off", "--local.epochs", "1"], tmp_path)
    assert done.returncode == 0
    assert "epoch" not in done.stdout
    assert "majority vote" in done.stdout
    lines = next(tmp_path.glob("runs/*/metrics.jsonl")).read_text().splitlines()
    assert len(lines) == 4 + 2 + 5, "what is not shown is recorded all the same"
