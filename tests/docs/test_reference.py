"""The pages that are made of the code say what the code says."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

import hpcdd
from hpcdd.cli.main import COMMANDS
from hpcdd.config import options

from .pages import ROOT, page


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(generator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    made = generator.pages()
    old = [name for name, text in made.items() if page(f"docs/reference/{name}") != text]
    assert not old, "run `python docs/generate.py`"
    assert {path.name for path in (ROOT / "docs/reference").glob("*")} == made.keys()


def test_nothing_is_left_out() -> None:
    settings, commands, python = (page(f"docs/reference/{name}.md") for name in ("settings", "commands", "python"))
    for name, info in options.fields().items():
        assert (f"## {name}" if options.section_of(info) else f"`{name}` — ") in settings
    for command in COMMANDS:
        assert f"## {command}\n" in commands
    for name in set(hpcdd.__all__) - {"__version__"}:
        assert f"### hpcdd.{name}\n" in python
