"""What a person can't see by eye in every change, and what ruff, mypy and import-linter (in .ci/run) don't look for."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_marker_is_left_out_of_the_default_selection_and_explained() -> None:
    """What .ci/run runs behind the README's command is what this expression names: a marker that is missing in it runs
    with the default selection, and one that is missing in the table nobody finds."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    markers = [marker.partition(":")[0] for marker in options["markers"] if "(" not in marker.partition(":")[0]]
    assert f"-m 'not ({' or '.join(markers)})'" in options["addopts"]
    rows = [line.split("|")[1].strip() for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if "| `" in line]
    assert [row.strip("`") for row in rows if row.strip("`") in markers] == markers


def test_files_stay_readable() -> None:
    """A file is as long as its one idea needs, usually 100 to 300 lines; longer than that it holds several."""
    long = {path.name: n for path in ROOT.glob("hpcdd/**/*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_the_architecture_page_names_what_is_there() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", page))
    assert named >= {f"{path.parent.name}/" for path in ROOT.glob("hpcdd/*/__init__.py")}
    missing = [name for name in named if not (ROOT / "hpcdd" / name).exists() and not (ROOT / name).exists()]
    assert not missing


def test_no_module_name_means_two_things() -> None:
    """But a command's file in cli/ may be called like the file that does its work."""
    paths = [path for path in ROOT.glob("hpcdd/**/*.py") if path.parent.name != "cli" and path.stem != "__init__"]
    names = Counter(path.stem for path in paths)
    assert [name for name, count in names.items() if count > 1] == []
