"""Whatever stands in a configuration or on a command line is a configuration or a UserError, and no code runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcdd.config.loading import QUICKSTART, from_yaml, to_yaml
from hpcdd.config.schema import Config
from hpcdd.config.sections import Settings
from hpcdd.core.errors import UserError

from ..parsed import parse
from .row import CODE, SENTINEL

SECTIONS = {name: type(value) for name, value in Config() if isinstance(value, Settings)}
FIELDS = [
    *(set(Config.model_fields) - set(SECTIONS)),
    *(f"{name}.{field}" for name, section in SECTIONS.items() for field in section.model_fields),
]
FIELDS.sort()
FUZZED = settings(derandomize=True, database=None, suppress_health_check=list(HealthCheck))

TEXTS = st.text(max_size=8) | st.sampled_from(["vgg3", "sgd", "auto", "embedded", "a:b", "\0", ".nan", "1e999", "null"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
NAMES = sorted(set(Config.model_fields).union(*(section.model_fields for section in SECTIONS.values())))
KEYS = st.sampled_from(NAMES) | st.text(max_size=6) | st.integers(-3, 3) | st.none() | st.booleans() | st.floats()
TREES = st.recursive(SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS, below, max_size=4))
PLAUSIBLE = st.fixed_dictionaries(
    {},
    optional={
        name: TREES
        if name not in SECTIONS
        else st.fixed_dictionaries({}, optional=dict.fromkeys(SECTIONS[name].model_fields, TREES))
        for name in Config.model_fields
    },
)
FRAGMENTS = st.sampled_from(
    [
        *"{}[]()<>:,&*!|>'\"%@`#-?~\t\n\\\0",
        "<<: *a",
        "&a ",
        "*a",
        "!!python/name:os.system ",
        f'!!python/object/apply:builtins.exec ["{CODE}"]',
        f'!!python/object/new:eval ["{CODE}"]',
        "!!binary ",
        "!!set ",
        "!!int ",
        "!!timestamp 2020-01-01",
        "\n---\n",
        "%YAML 1.1\n",
        '"\\U00110000"',
        "\ufeff",
        "\u2028",
    ]
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(content: str | bytes, *arguments: str) -> None:
    """The content is a configuration that survives a round trip through YAML, or a UserError."""
    Path("c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UserError):
        config, _ = parse(["c.yaml", *arguments])
        assert from_yaml(to_yaml(config), "config.yaml") == config.model_copy(update={"output": None})
    assert not Path(SENTINEL).exists()


@pytest.mark.slow
@settings(FUZZED, max_examples=150)
@given(tree=TREES | PLAUSIBLE)
def test_trees(tree: Any) -> None:
    check(yaml.safe_dump(tree, allow_unicode=True))


@settings(FUZZED, max_examples=300)
@given(content=st.binary(max_size=60) | st.text(max_size=60) | st.lists(FRAGMENTS | TEXTS, max_size=12).map("".join))
def test_any_content(content: str | bytes) -> None:
    check(content)


@settings(FUZZED, max_examples=300)
@given(at=st.integers(0, 10_000), cut=st.integers(0, 12), fragment=FRAGMENTS | TEXTS | st.sampled_from(NAMES))
def test_a_valid_file_mutated(at: int, cut: int, fragment: str) -> None:
    text = QUICKSTART.read_text() + to_yaml(Config(output="x")).replace("name:", "title:", 1)
    at %= len(text)
    check(text[:at] + fragment + text[at + cut :])


ARGUMENTS = (
    st.sampled_from([f"--{name}" for name in FIELDS])
    | st.sampled_from([f"--{name}" for name in [*SECTIONS, "print_config", "zyx"]])
    | st.sampled_from(
        ["2,2", "[2", "{a: 1}", "-1", "1e-3", "-.5", "--", "-", "=", "nan", "null", "true", "*a", "9" * 400]
    )
    | FRAGMENTS
    | TEXTS
)


@settings(FUZZED, max_examples=100)
@given(arguments=st.lists(ARGUMENTS, max_size=6), option=st.sampled_from(FIELDS), value=ARGUMENTS)
def test_any_command_line(arguments: list[str], option: str, value: str) -> None:
    check("{}", *(argument for argument in arguments if argument not in ("-h", "--help")), f"--{option}={value}")
    with contextlib.suppress(UserError):
        parse([argument for argument in arguments if argument not in ("-h", "--help")])
    assert not Path(SENTINEL).exists()
