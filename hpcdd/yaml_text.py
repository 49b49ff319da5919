"""YAML without surprises, for configuration files and for values on the command line."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any, ClassVar, cast

import yaml

KeyPath = tuple[str | int, ...]


class YAMLTextError(ValueError):
    """A text that is not valid YAML.

    Attributes:
        line: where, from 1; None where PyYAML does not say.
    """

    def __init__(self, problem: str, line: int | None) -> None:
        super().__init__(problem)
        self.line = line


def load(text: str) -> Any:
    """What a YAML text says; runs no code and makes nothing but texts, numbers, truth values, lists and mappings.

    Raises:
        YAMLTextError: it is not valid, or a key stands twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or error)
        raise YAMLTextError(problem, mark.line + 1 if mark else None) from error
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # What PyYAML lets through: explicit tags on values that they don't fit, numbers of thousands of digits.
        raise YAMLTextError(f"{type(error).__name__}: {error}", None) from error


def lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, on which each key of a valid YAML text stands."""
    return dict(_lines(yaml.compose(text, Loader=_Loader), ()))


def dump(content: Any) -> str:
    """The text from which :func:`load` makes ``content`` again."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, default_flow_style=None)


def _lines(node: yaml.Node | None, place: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*place, key.value), key.start_mark.line + 1
            yield from _lines(value, (*place, key.value))


class _Loader(yaml.SafeLoader):
    """A safe loader without YAML 1.1's surprises, and with an error for a key which stands twice.

    PyYAML reads ``010`` as 8, ``1:30`` as 90, ``yes`` as true, a date as a date, and ``1e-6`` as text. Here numbers are
    what JSON takes for numbers, ``true`` and ``false`` are the truth values, and the rest is text.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]  # the stub has no ClassVar


class _Dumper(yaml.SafeDumper):
    """Quotes what :class:`_Loader` would read as something else than text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


_TAG = "tag:yaml.org,2002:"
for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", ["<"]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "found unhashable key", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    return dict(loader.construct_mapping(node, deep=True))


def _scalar(loader: Any, node: yaml.Node) -> str:
    return str(loader.construct_scalar(cast(yaml.ScalarNode, node)))


_Loader.add_constructor(_TAG + "map", _construct_mapping)
_Loader.add_constructor(_TAG + "int", lambda loader, node: int(_scalar(loader, node)))
_Loader.add_constructor(_TAG + "float", lambda loader, node: float(_scalar(loader, node)))
