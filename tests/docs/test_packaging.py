"""Recipes and metadata agree with pyproject.toml, where versions and dependencies stand."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import hpcdd

from .pages import ROOT, page

PROJECT = tomllib.loads(page("pyproject.toml"))["project"]
NEEDED = {re.split(r"[<>=]", text)[0]: re.sub(r"^[\w-]+", "", text) for text in PROJECT["dependencies"]}
ELSEWHERE = {"matplotlib-base": "matplotlib", "pytorch": "torch", "pil": "pillow"}


def test_versions_agree() -> None:
    citation, meta = yaml.safe_load(page("CITATION.cff")), json.loads(page("codemeta.json"))
    recipe = yaml.safe_load(page("packaging/conda/recipe.yaml"))
    assert {PROJECT["version"], citation["version"], meta["version"], recipe["package"]["version"]} == {
        hpcdd.__version__
    }
    assert citation["license"] == PROJECT["license"]
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2408.14442"


def test_the_conda_recipe_has_the_dependencies() -> None:
    run = yaml.safe_load(page("packaging/conda/recipe.yaml"))["requirements"]["run"]
    requirements = dict(line.split(" ", 1) for line in run)
    assert requirements.pop("python") == PROJECT["requires-python"]
    assert {ELSEWHERE.get(name, name): version for name, version in requirements.items()} == NEEDED


def test_the_spack_package_has_the_dependencies() -> None:
    tree = ast.parse(page("packaging/spack/package.py"))
    pairs = [node.elts for node in ast.walk(tree) if isinstance(node, ast.Tuple) and len(node.elts) == 2]
    specs = {a.value: b.value for a, b in pairs if isinstance(a, ast.Constant) and str(b.value).startswith("@")}  # type: ignore[attr-defined]
    names = {name: name.removeprefix("py-") for name in specs}
    requirements = {ELSEWHERE.get(name, name): specs[spack] for spack, name in names.items()}
    assert requirements.keys() == NEEDED.keys()
    for name, spec in requirements.items():
        assert spec[1:].split(":")[0] in NEEDED[name], name


def test_the_reframe_check_is_python() -> None:
    ast.parse(page("packaging/reframe.py"))


def test_the_changelog_has_its_sections() -> None:
    text = page("CHANGELOG.md")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "Unreleased"
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"
    }  # fmt: skip


@pytest.mark.slow
def test_the_container_receives_what_the_package_is_built_from(tmp_path: Path) -> None:
    section = page("jobs/hpcdd.def").partition("%files\n")[2].partition("%post")[0]
    for source, target in (line.split() for line in section.splitlines() if line.strip()):
        destination = tmp_path / target.lstrip("/")
        destination.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, destination)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, tmp_path / "opt/hpcdd"]
    subprocess.run(command, check=True, timeout=600)
    (wheel,) = tmp_path.glob("hpcdd-*.whl")
    assert "hpcdd/report/base.html" in zipfile.ZipFile(wheel).namelist()
