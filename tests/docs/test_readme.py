"""The README's examples, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from hpcdd.data.writing import write_dataset

from ..conftest import make_split
from ..hosts.bed import missing
from ..launchers import Launcher
from .pages import ROOT, page
from .test_tutorial import run

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As a checkout, with the configurations."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    return tmp_path


def test_a_setting_on_the_command_line(mpi: Launcher, folder: Path) -> None:
    (command,) = re.findall(r"^mpirun -n 4 hpcdd train configs/.*$", page("README.md"), re.MULTILINE)
    run(command, folder)
    results = json.loads((folder / "runs/quickstart-001/results.json").read_text())
    assert results["decomposition"]["grid"] == [3, 2]
    assert results["decomposition"]["overlap"] == [2, 2]
    assert results["accuracy"]["test"]["coherent_transfer"] > results["accuracy"]["test"]["dnn"]


def test_what_is_installed(tmp_path: Path) -> None:
    (command,) = re.findall(r"`(python -m hpcdd info)`", page("README.md"))
    reported = {line.split("  ")[0] for line in run(command, tmp_path).splitlines()}
    assert {"hpcdd", "torch", "MPI library", "MPI launcher"} <= reported


def test_the_same_from_python(folder: Path) -> None:
    ((script,),) = [re.findall(r"```python\n(.*?)```", page("README.md"), re.DOTALL)]
    (folder / "script.py").write_text(script + "print(type(model).__mro__)\n")
    printed = run("python script.py", folder).splitlines()
    assert float(printed[-2]) > 0.8
    assert "torch.nn.modules.module.Module" in printed[-1]


FIGURES = {
    command.split("hpcdd ")[-1].split(" configs/")[0]: command
    for command in re.findall(r"^\|.*\| `(.*)` \|$", page("README.md").partition("## Three results")[2], re.MULTILINE)
}
"""By hpcdd's command, the three of the table."""


def stand_in(path: Path, samples: int, shape: tuple[int, int, int], classes: int) -> None:
    """Writes a substitute for a data set that is not in the repository; a fifth of the samples are for the test."""
    rest = samples // 5
    parts = {"train": (samples - rest, 0), "test": (rest, 1)}
    splits = {split: make_split(n, shape=shape, classes=classes, seed=seed) for split, (n, seed) in parts.items()}
    write_dataset(path, splits, name=path.stem, class_names=[str(k) for k in range(classes)])


def test_the_headline(mpi: Launcher, folder: Path) -> None:
    stand_in(folder / "cifar10.h5", 1300, (3, 32, 32), 10)
    printed = run(FIGURES["bench headline"], folder)
    cells = [[cell.strip() for cell in line.split("│")] for line in printed.splitlines()]
    assert [row[1] for row in cells if len(row) == 6 and re.fullmatch(r"[01]\.\d{4}", row[4])] == [
        "global CNN, DDP", "local CNNs and DNN", "coherent model, by transfer"
    ]  # fmt: skip
    assert (folder / "headline/report.html").stat().st_size > 10_000


def test_the_faces(folder: Path) -> None:
    stand_in(folder / "faces.h5", 38 * 10, (1, 96, 84), 38)
    assert "coherent model, by transfer" in run(FIGURES["train"], folder)


@pytest.mark.hosts
def test_the_coherent_step_over_two_hosts(mpi: Launcher, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := missing():
        pytest.skip(reason)
    stand_in(folder / "cifar10.h5", 6250, (3, 32, 32), 10)
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
    assert "a bare Allreduce of them" in run(FIGURES["bench coherent"], folder)


def test_there_are_three_results() -> None:
    assert sorted(FIGURES) == ["bench coherent", "bench headline", "train"]
