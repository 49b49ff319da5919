"""The options of the configuration: one for every field, for the parsers of all commands that train or plan."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..core import yaml_text
from ..core.texts import hint
from .renamed import RENAMED, current, in_current_names
from .schema import Config

Tree = dict[str, Any]

PREFIX = "config:"
"""In front of a field's name, as the attribute that argparse sets: commands have options of the same names."""


@dataclass(frozen=True)
class Overrides:
    """What a command line, or a script, sets over a configuration file.

    Attributes:
        tree: the fields, nested as in a file.
        problems: what is wrong with the command line, a line each; reported with the mistakes of the file.
        origin: in the messages.
    """

    tree: Tree = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    origin: str = "command line"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From values by full name (``local.epochs``), or by section a mapping of them."""
        tree: Tree = {}
        for name, value in values.items():
            section, _, last = name.rpartition(".")
            inner = tree.setdefault(section, {}) if section else tree
            if isinstance(value, Mapping) and not section:
                inner[name] = {**inner.get(name, {}), **value}
            else:
                inner[last] = value
        return cls(in_current_names(tree, "overrides")[0], origin="overrides")


def add_to(parser: argparse.ArgumentParser) -> list[argparse._ArgumentGroup]:
    """Adds an option for every field of which the parser has none of its own; gives the groups that show them."""
    group = parser.add_argument_group("fields of the configuration")
    groups, known = [group], parser._option_string_actions
    for name, info in fields().items():
        description = described(info).replace("%", "%%")
        if section_of(info):
            group = parser.add_argument_group(name, description)
            groups.append(group)
        elif (option := f"--{name}".replace("_", "-")) not in known:
            default = "" if info.default is None else f" (default: {shown(info.default)})"
            group.add_argument(
                option,
                dest=PREFIX + name,
                metavar=type_name(info.annotation, info.metadata),
                default=argparse.SUPPRESS,
                help=f"{description}{default}",
            )
    for former in RENAMED:
        group.add_argument(f"--{former}", dest=PREFIX + former, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return groups


def given(namespace: argparse.Namespace) -> Overrides:
    """The fields that stand on a command line, taken out of what argparse has found."""
    tree: Tree = {}
    problems, known = [], fields()
    for attribute in [name for name in vars(namespace) if name.startswith(PREFIX)]:
        text, name = vars(namespace).pop(attribute), attribute.removeprefix(PREFIX)
        section, _, key = name.rpartition(".")
        try:
            # argparse (3.11) makes a list of a value that is `--`.
            value = _value(text if isinstance(text, str) else "--", known[current(name)])
        except yaml_text.YAMLTextError:
            problems.append(f"command line: {name} is {text!r}, which can't be parsed; write lists as 2,3 or [2,3]")
        else:
            (tree.setdefault(section, {}) if section else tree)[key] = value
    return Overrides(in_current_names(tree, "command line")[0], tuple(problems))


def nearest(name: str) -> str:
    """The hint for an unknown name in a file."""
    if name in RENAMED:
        return f", because {RENAMED[name]}, its present name, is set as well; write only that one"
    return hint(name, fields(), "--help lists every field")


def is_section(name: object) -> bool:
    """Whether a name is that of a section of the configuration."""
    info = Config.model_fields.get(str(name))
    return info is not None and section_of(info) is not None


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """The model of a section; None for a field that is none."""
    annotation = info.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def described(info: FieldInfo) -> str:
    """What a field or a section is for, in one line: its docstring, of a section's class the first paragraph."""
    section = section_of(info)
    text = info.description if section is None else (section.__doc__ or "").partition("\n\n")[0]
    return " ".join((text or "").split())


def fields() -> dict[str, FieldInfo]:
    """Every field and section by its full name."""
    by_name: dict[str, FieldInfo] = {}
    for name, info in Config.model_fields.items():
        by_name[name] = info
        if section := section_of(info):
            by_name |= {f"{name}.{key}": below for key, below in section.model_fields.items()}
    return by_name


def choices(info: FieldInfo) -> list[str]:
    """The words that a field admits, for the completion of a shell; empty where there are too many."""
    admitted: list[str] = []
    for member in _members(info.annotation):
        if get_origin(member) is Literal:
            admitted += map(str, get_args(member))
        elif member is bool:
            admitted += ["true", "false"]
    return admitted


def _value(text: str, info: FieldInfo) -> Any:
    """The value behind an option: text for a field that is text, else YAML; ``2,3`` is short for ``[2,3]``."""
    kinds = [get_origin(kind) or kind for kind in _members(info.annotation)]
    text = text.strip()
    if str in kinds:
        return None if text == "null" and NoneType in kinds else text
    if tuple in kinds and not text.startswith("[") and text != "null" and ("," in text or int not in kinds):
        text = f"[{text}]"
    return yaml_text.load(text)


def _members(annotation: Any) -> Sequence[Any]:
    """The members of a union, each without its ``Annotated``; another type alone."""
    if get_origin(annotation) in (Union, UnionType):
        return [plain for member in get_args(annotation) for plain in _members(member)]
    return _members(annotation.__origin__) if hasattr(annotation, "__metadata__") else [annotation]


def type_name(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """How a type is written on the command line, with its range."""
    if hasattr(annotation, "__metadata__"):
        return type_name(annotation.__origin__, annotation.__metadata__)
    if get_origin(annotation) in (Union, UnionType):
        return "|".join(type_name(member) for member in get_args(annotation))
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        inner = [type_name(member) for member in get_args(annotation) if member is not ...]
        return f"[{','.join(inner)}{',...' if ... in get_args(annotation) else ''}]"
    names = {dict: "mapping", NoneType: "null", bool: "true|false"}
    name = names.get(get_origin(annotation) or annotation) or annotation.__name__
    limits = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return name + "".join(
        f"{sign}{getattr(mark, key):g}"
        for mark in _flat(metadata)
        for key, sign in limits.items()
        if getattr(mark, key, None) is not None
    )


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    """Constraints; pydantic keeps those of a ``Field(...)`` within an ``Annotated`` one level deeper."""
    for mark in metadata:
        yield from _flat(mark.metadata) if isinstance(mark, FieldInfo) else [mark]


def shown(value: Any) -> str:
    """How a value is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
