"""The generated pages agree with the code."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import inspect
import re
from types import ModuleType

import h5py
import pytest

import hpcdd
from hpcdd.cli.main import COMMANDS
from hpcdd.config import options
from hpcdd.core import environment
from hpcdd.data.format import EMBEDDED

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
        assert (f"\n## {name}\n" if options.section_of(info) else f"\n- `{name}` (`") in settings
    for command in COMMANDS:
        assert f"## {command}\n" in commands
    for name in set(hpcdd.__all__) - {"__version__"}:
        assert f"### hpcdd.{name}\n" in python


def test_what_public_functions_return_and_raise_is_described() -> None:
    python = page("docs/reference/python.md")
    functions = [value for name in hpcdd.__all__ if inspect.isfunction(value := getattr(hpcdd, name))]
    returned = {str(inspect.signature(function).return_annotation) for function in functions}
    raised = set(re.findall(r"^- `(\w+)`", "".join(re.findall(r"Raises:\n\n((?:- .*\n)+)", python)), re.MULTILINE))
    assert {"Classifier", "DatasetInfo"} <= returned
    assert {"DivergedError", "StopRequest", "UserError", "WriteError"} <= raised
    described = set(re.findall(r"^### hpcdd\.(?:\w+\.)*(\w+)$", python, re.MULTILINE))
    assert returned | raised <= described | set(dir(builtins))


def test_signatures_are_python() -> None:
    blocks = re.findall(r"```python\n(.*?)\n```", page("docs/reference/python.md"), re.DOTALL)
    functions = [b.removeprefix("@classmethod\n") for b in blocks if re.match(r"(?:@classmethod\n)?\w+\(", b)]
    assert len(functions) > 20
    for signature in functions:
        ast.parse(f"def {signature}: ...")
    assert any('split: str = "test"' in signature for signature in functions)


def test_every_field_of_a_file_has_a_meaning() -> None:
    rows = [line.strip("| ").split(" | ") for line in page("docs/reference/files.md").splitlines() if line[:3] == "| `"]
    assert len(rows) > 150
    for row in rows:
        assert len(row) in (2, 3), row
        assert re.fullmatch(r"[^a-z].*\w.*\.", row[-1]), row
        assert "see `" not in row[-1], row


def test_files_hold_what_is_described(generator: ModuleType) -> None:
    described = generator._attributes(inspect.getdoc(environment.facts), "Keys")
    assert [name.partition(" (")[0] for name in described] == list(environment.facts())
    text = page("docs/reference/files.md").split("\n## Dataset file\n")[1].split("\n## ")[0]
    with h5py.File(EMBEDDED) as file:
        names = [*file.attrs, *(f"/train/{name}" for name in file["train"]), *(f"/{split}" for split in file)]
    assert all(f"| `{name}` |" in text for name in names)
