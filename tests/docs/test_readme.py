"""The README's examples, as they stand there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

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
