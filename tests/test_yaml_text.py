"""What a person writes is what hpcdd reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdd.yaml_text import YAMLTextError, dump, lines, load

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
TREES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1E6", 1e6),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("true", True),
        ("2020-12-05", "2020-12-05"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("~", None),
        ("", None),
        ("'1e-6'", "1e-6"),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("{1: a, '1': b}", {1: "a", "1": "b"}),
    ],
)
def test_numbers_are_jsons_and_the_rest_is_text(text: str, value: Any) -> None:
    found = load(text)
    assert found == value
    assert type(found) is type(value)


@given(tree=TREES)
def test_round_trip(tree: Any) -> None:
    assert load(dump(tree)) == tree


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("a: 1\na: 2", "the key 'a' stands twice", 2),
        ("a:\n  b: 1\n  b: 2", "the key 'b' stands twice", 3),
        ("a: [1", "expected ',' or ']'", 1),
        ("? [1]\n: 2", "unhashable", 1),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor", 1),
        ("!!bool foo", "KeyError", None),
        ("9" * 5000, "ValueError", None),
        ("[" * 3000, "RecursionError", None),
    ],
)
def test_what_is_wrong_is_told(text: str, problem: str, line: int | None) -> None:
    with pytest.raises(YAMLTextError, match=problem) as caught:
        load(text)
    assert line is None or caught.value.line == line


def test_lines() -> None:
    assert lines("a: 1\n\nb:\n  c: 2\n") == {("a",): 1, ("b",): 3, ("b", "c"): 4}
