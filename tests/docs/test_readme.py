"""The README's examples, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

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


def stand_in(folder: Path, name: str, samples: int, shape: tuple[int, int, int], classes: int, words: str) -> None:
    """Noise in the place of a data set that is not part of the repository; a fifth of the samples are for the test."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (samples, *shape), dtype=np.uint8)
    np.savez(folder / f"{name}.npz", images=images, labels=np.arange(samples) % classes)
    run(f"hpcdd prepare npz {name}.npz {name}.h5 --layout NHWC --images images --labels labels {words}", folder)


def test_the_headline(mpi: Launcher, folder: Path) -> None:
    stand_in(folder, "cifar10", 1300, (32, 32, 3), 10, "--coarse 2")
    printed = run(FIGURES["bench headline"], folder)
    assert [line.split()[-3] for line in printed.splitlines() if line.startswith(("global", "local", "coh"))]
    assert (folder / "headline/report.html").stat().st_size > 10_000


def test_the_faces(folder: Path) -> None:
    stand_in(folder, "faces", 38 * 10, (96, 84, 1), 38, "--grid 2,2")
    assert "coherent model, by transfer" in run(FIGURES["train"], folder)


@pytest.mark.hosts
def test_the_coherent_step_over_two_hosts(mpi: Launcher, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := missing():
        pytest.skip(reason)
    stand_in(folder, "cifar10", 6250, (32, 32, 3), 10, "")
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
    assert "a bare Allreduce of them" in run(FIGURES["bench coherent"], folder)


def test_there_are_three_results() -> None:
    assert sorted(FIGURES) == ["bench coherent", "bench headline", "train"]
