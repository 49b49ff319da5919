"""Pages as readers see them: short enough, links that lead somewhere, commands that are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from hpcdd.cli.main import COMMANDS, parser
from hpcdd.core.errors import UserError

from .pages import ROOT, commands, page

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if "_build" not in path.parts
)


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short() -> None:
    assert len(page("README.md").splitlines()) <= 200


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page(name), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(path.read_text("utf-8")), f"{name}: {target}"
    for target in re.findall(r"\{doc\}`([^`]+)`", page(name)):
        assert ((ROOT / name).parent / f"{target}.md").exists(), f"{name}: {target}"


@pytest.mark.parametrize("name", [name for name in PAGES if "reference/" not in name])
def test_commands_are_understood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their options are there, and have the number of values that they need."""
    monkeypatch.chdir(ROOT)
    for command in commands(page(name)):
        if re.search(r"\[|\||\.\.\.|\b[A-Z]{4,}\b|\$", command):
            continue  # a pattern, in which words stand for others
        arguments = shlex.split(command)
        arguments = arguments if arguments and arguments[0] in COMMANDS else ["train", *arguments]
        try:
            parser().read(arguments)
        except UserError as error:
            pytest.fail(f"{name}: hpcdd {command}: {error}")


def test_every_page_is_in_the_table_of_contents() -> None:
    index = page("docs/index.md")
    named = {f"docs/{line.strip()}.md" for line in index.splitlines() if re.fullmatch(r"[\w/-]+", line.strip())}
    linked = {f"docs/{target}" for target in re.findall(r"^- \[.*\]\((.*)\): ", index, re.MULTILINE)}
    assert {name for name in PAGES if name.startswith("docs/")} - {"docs/index.md", "docs/man.md"} == named == linked


def test_figures_name_revisions_that_the_page_dates() -> None:
    text = page("docs/measurements.md")
    dated = set(re.findall(r"^\| `([0-9a-f]{7})` \| 20\d\d-\d\d-\d\d \|$", text, re.MULTILINE))
    assert dated >= set(re.findall(r"revisions? ([0-9a-f]{7})\b", text))


def test_examples_are_where_pages_say() -> None:
    assert {path.name for path in Path(ROOT / "docs/examples").glob("*.*")} == {
        "load.ipynb",
        "own_cnn.py",
        "write_dataset.py",
        "write_photos.py",
    }
