"""The tutorial's job, as it stands there."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from ..docs.pages import ROOT, blocks, page
from ..docs.test_tutorial import run
from ..programs import JOBS, hpcdd
from .cluster import Cluster

pytestmark = pytest.mark.slurm


def test_the_tutorials_job(cluster: Cluster, tmp_path: Path) -> None:
    text = page("docs/tutorial.md")
    shutil.copytree(ROOT / "docs/examples", tmp_path / "docs/examples")
    shutil.copytree(JOBS, tmp_path / "jobs")
    for name, content in blocks(text, "file"):
        (tmp_path / name).write_text(content)
    for _, command in blocks(text, "run")[:2]:
        run(command, tmp_path)
    ((_, command),) = blocks(text, "slurm")
    program, *arguments = shlex.split(command)
    assert program == "sbatch"
    job = cluster.submit(tmp_path, *arguments, HPCDD_VENV=hpcdd(tmp_path))
    assert cluster.exit_code(job) == 0, (tmp_path / f"hpcdd-{job}.out").read_text()
    assert json.loads((tmp_path / "runs/slurm/results.json").read_text())["ranks"] == 4
