"""YAML without surprises, for configuration files and for values on the command line."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

from .errors import UserError

KeyPath = tuple[str | int, ...]
_TAG = "tag:yaml.org,2002:"
_MOST_VALUES = 1 << 16


class YAMLTextError(ValueError):
    """A text that is not valid YAML.

    Attributes:
        line: where, from 1; None where PyYAML does not say.
    """

    def __init__(self, problem: str, line: int | None) -> None:
        super().__init__(problem)
        self.line = line


def decoded(path: Path, content: bytes) -> str:
    """A file's text: UTF-8 or, as YAML admits it, UTF-16 with a byte order mark.

    Raises:
        UserError: it is neither; with the encoding that it probably has.
    """
    for unmarked, first in (("UTF-16LE", content[1:2]), ("UTF-16BE", content[:1])):
        if first == b"\0" and len(content) % 2 == 0:
            raise UserError(
                f"configuration {path} is probably {unmarked}, without a byte order mark; convert it by "
                f"`iconv -f {unmarked} -t UTF-8 {path}` to another file, and name that"
            )
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        if marked or b"\0" in content:
            raise UserError(f"configuration {path} is not a text file; name a YAML file") from error
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise UserError(
            f"{path}:{line}: not UTF-8: the byte 0x{byte:02x}, which is {chr(byte)!r} in Latin-1; convert it by "
            f"`iconv -f LATIN1 -t UTF-8 {path}` to another file, and name that"
        ) from error


def load(text: str) -> Any:
    """What a YAML text says; runs no code and makes nothing but texts, numbers, truth values, lists and mappings.

    Raises:
        YAMLTextError: it is not valid, a key stands twice or is no text, or it is absurdly large.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None
        _count(node, {})
        return _value(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YAMLTextError(f"it contains the character {chr(int(error.character))!r}", line) from error
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark, str(error.problem)
        problem = f"{error.context}, {problem}" if problem.startswith("but ") else problem
        raise YAMLTextError(problem, mark.line + 1 if mark else None) from error
    except RecursionError as error:
        raise YAMLTextError("it is nested too deeply", None) from error
    except (ArithmeticError, ValueError) as error:
        # What PyYAML lets through: escapes of invalid characters, versions of thousands of digits.
        raise YAMLTextError(f"an escape or a version is out of range ({error})", None) from error


def lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, on which each key of a valid YAML text stands."""
    return dict(_lines(yaml.compose(text, Loader=_Loader), ()))


def dump(content: Any) -> str:
    """The text that :func:`load` reads as ``content``."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None)


def _lines(node: yaml.Node | None, parent: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*parent, key.value), key.start_mark.line + 1
            yield from _lines(value, (*parent, key.value))


def _count(node: yaml.Node, counts: dict[int, int | None]) -> int:
    """Values that a node stands for, what is behind an alias counted each time; ``counts`` holds those known by id.

    A few aliases of aliases can stand for more than any memory holds.
    """
    if id(node) not in counts:
        counts[id(node)] = None
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        below = 0 if isinstance(node, yaml.ScalarNode) else sum(_count(part, counts) for part in parts)
        counts[id(node)] = 1 + below
    count = counts[id(node)]
    if count is None or count > _MOST_VALUES:
        what = "holds itself" if count is None else f"expands to more than {_MOST_VALUES:,} values"
        raise yaml.composer.ComposerError(None, None, f"what starts here {what}", node.start_mark)
    return count


class _Loader(yaml.SafeLoader):
    """Without YAML 1.1's surprises.

    PyYAML reads ``010`` as 8, ``1:30`` as 90, ``yes`` as true, a date as a date, and ``1e-6`` as text. Here numbers are
    what JSON takes for numbers, ``true`` and ``false`` are the truth values, and the rest is text.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # the stub has no ClassVar


class _Dumper(yaml.SafeDumper):
    """Quotes what :class:`_Loader` would read as something else than text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", ["<"]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first)

_SCALARS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "null": ("null", lambda _: None),
    "bool": ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    "int": ("an integer", int),
    "float": ("a number", float),
    "str": ("text", str),
}
"""By tag: what it is called, and how it is read; an explicit tag can name one that the text does not fit."""


def _value(node: yaml.Node) -> Any:
    kind = node.tag.removeprefix(_TAG)
    if kind in _SCALARS:
        if not isinstance(node, yaml.ScalarNode):
            raise _refused(node, f"expected a scalar node, for {_SCALARS[kind][0]}")
        try:
            return _SCALARS[kind][1](node.value)
        except (LookupError, ValueError) as error:  # int refuses thousands of digits
            raise _refused(node, f"{_shown(node)} can't be read as {_SCALARS[kind][0]}") from error
    if kind == "seq" and isinstance(node, yaml.SequenceNode):
        return [_value(part) for part in node.value]
    if kind == "map" and isinstance(node, yaml.MappingNode):
        return _mapping(node)
    if kind in ("seq", "map"):
        raise _refused(node, f"a {'list' if kind == 'seq' else 'mapping'} is needed here")
    tag = node.tag.replace(_TAG, "!!")
    raise _refused(node, f"the tag {tag} is not supported; a configuration holds strings, numbers, lists and mappings")


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    """A mapping whose own keys stand once; they override those that ``<<`` merges, of which the first one counts."""
    own_values: dict[str, Any] = {}
    merged: dict[str, Any] | None = None
    for key, value in node.value:
        if key.tag == _TAG + "merge":
            if merged is not None:
                raise _refused(key, "the key '<<' occurs twice; give it a list of mappings")
            parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
            if not all(isinstance(part, yaml.MappingNode) for part in parts):
                raise _refused(value, "<< must be followed by a mapping or a list of mappings")
            merged = {name: inherited for part in reversed(parts) for name, inherited in _value(part).items()}
        elif key.tag != _TAG + "str":
            raise _refused(key, f"the key {_shown(key)} is not a string; put it in quotes if it is meant to be one")
        elif _value(key) in own_values:
            raise _refused(key, f"the key {key.value!r} occurs twice")
        else:
            own_values[key.value] = _value(value)
    return {**(merged or {}), **own_values}


def _refused(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _shown(node: yaml.Node) -> str:
    """A value as it is written, if it is short."""
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else "[...]"
    return text if len(text) <= 40 else f"{text[:40]}..."
