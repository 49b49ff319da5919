"""What a person writes is what hpcdd reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdd.core.yaml_text import YAMLTextError, dump, lines, load

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
        ("{a: &x {b: 1, d: 1}, c: {d: 2, <<: *x}}", {"a": {"b": 1, "d": 1}, "c": {"b": 1, "d": 2}}),
        ("{a: &x {b: 1}, c: &y {<<: *x, b: 2}, d: {<<: *y}}", {"a": {"b": 1}, "c": {"b": 2}, "d": {"b": 2}}),
        ("{a: &x {b: 1}, c: {<<: [*x, {b: 2, d: 2}]}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("'<<': 1", {"<<": 1}),
    ],
)
def test_numbers_are_jsons_and_the_rest_is_text(text: str, value: Any) -> None:
    loaded = load(text)
    assert loaded == value
    assert type(loaded) is type(value)


@given(tree=TREES)
def test_round_trip(tree: Any) -> None:
    assert load(dump(tree)) == tree


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("a: 1\na: 2", "the key 'a' occurs twice", 2),
        ("a:\n  b: 1\n  b: 2", "the key 'b' occurs twice", 3),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x", "the key '<<' occurs twice", 4),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2, b: 3}", "the key 'b' occurs twice", 2),
        ("a: 1\n<<: 2", "<< must be followed by a mapping", 2),
        ("a: [1", "expected ',' or ']'", 1),
        ("? [1]\n: 2", r"the key \[\.\.\.\] is not a string", 1),
        ("!!python/object/apply:os.system ['true']", "the tag !!python/object/apply:os.system is not supported", 1),
        ("!!bool foo", "foo can't be read as true or false", 1),
        ("9" * 5000, r"9999\.\.\. can't be read as an integer", 1),
        ("!!map [1]", "a mapping is needed here", 1),
        ("!!int [1]", "expected a scalar node", 1),
        ("a: !!timestamp 2020-12-05", "the tag !!timestamp is not supported", 1),
        ("a:\n  {null: 3}", "the key null is not a string", 2),
        ("\n\a", r"it contains the character '\\x07'", 2),
        ("[" * 3000, "nested too deeply", None),
    ],
)
def test_mistakes_are_reported(text: str, problem: str, line: int | None) -> None:
    with pytest.raises(YAMLTextError, match=problem) as caught:
        load(text)
    assert line is None or caught.value.line == line


def test_lines() -> None:
    assert lines("a: 1\n\nb:\n  c: 2\n") == {("a",): 1, ("b",): 3, ("b", "c"): 4}
