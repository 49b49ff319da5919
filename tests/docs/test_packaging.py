"""Recipes and metadata agree with pyproject.toml, where versions and dependencies stand."""

from __future__ import annotations

import ast
import json
import re
import tomllib

import yaml

import hpcdd

from .pages import page

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
    found = dict(line.split(" ", 1) for line in run)
    assert found.pop("python") == PROJECT["requires-python"]
    assert {ELSEWHERE.get(name, name): version for name, version in found.items()} == NEEDED


def test_the_spack_package_has_the_dependencies() -> None:
    tree = ast.parse(page("packaging/spack/package.py"))
    pairs = [node.elts for node in ast.walk(tree) if isinstance(node, ast.Tuple) and len(node.elts) == 2]
    specs = {a.value: b.value for a, b in pairs if isinstance(a, ast.Constant) and str(b.value).startswith("@")}  # type: ignore[attr-defined]
    names = {name: name.removeprefix("py-") for name in specs}
    found = {ELSEWHERE.get(name, name): specs[spack] for spack, name in names.items()}
    assert found.keys() == NEEDED.keys()
    for name, spec in found.items():
        assert spec[1:].split(":")[0] in NEEDED[name], name


def test_the_reframe_check_is_python() -> None:
    ast.parse(page("packaging/reframe.py"))


def test_the_changelog_has_its_sections() -> None:
    text = page("CHANGELOG.md")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[0] == "Unreleased"
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"
    }  # fmt: skip
