"""The options of ``hpcdd train``: one for every field of the configuration, and their ``--help``."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..core import yaml_text
from ..core.errors import UserError
from .schema import Config

Tree = dict[str, Any]

_DESCRIPTION = """\
Trains local CNNs on subimages, one per subdomain, and combines their decisions.
Without CONFIG (a YAML file) the packaged quick-start runs.

examples:
  mpirun -n 4 hpcdd train
  mpirun -n 4 hpcdd train configs/cifar10_vgg3.yaml --local.epochs 2 --decomposition.grid 4,4
  mpirun -n 2 hpcdd train --resume
"""


class _Parser(argparse.ArgumentParser):
    """Leaves it to the caller to print what is wrong: under mpirun root alone does, and all ranks exit."""

    def error(self, message: str) -> NoReturn:
        for pattern, words in (
            (r"argument (\S+): expected one argument", r"\1 needs a value"),
            (r"argument (\S+): ignored explicit argument .*", r"\1 takes no value"),
        ):
            message = re.sub(pattern, words, message)
        raise UserError(f"command line: {message}")


def parse_options(argv: Sequence[str]) -> tuple[Tree, bool, list[str]]:
    """Reads options; ``--help`` prints the documentation of every field and exits.

    Args:
        argv: the words behind ``hpcdd train [CONFIG]``.

    Returns:
        The fields that were given, as a tree like a YAML file's; whether ``--print_config`` was given; what is wrong.

    Raises:
        UserError: an option at the end of the line lacks its value.
    """
    given, unknown = _parser().parse_known_args(_joined(argv))
    options = vars(given)
    print_config = bool(options.pop("print_config"))
    problems = list(_unknown(unknown))
    problems += [
        f"command line: --{word} belongs to `hpcdd train`" for word in ("resume", "profile") if options.pop(word)
    ]
    tree: Tree = {}
    fields = _fields()
    for name, text in options.items():
        section, _, field = name.rpartition(".")
        try:
            # argparse (3.11) makes a list of a value that is `--`.
            value = _value(text if isinstance(text, str) else "--", fields[name])
        except yaml_text.YAMLTextError:
            problems.append(f"command line: {name} is {text!r}, which can't be read; lists are written as 2,3 or [2,3]")
        else:
            (tree.setdefault(section, {}) if section else tree)[field] = value
    return tree, print_config, problems


def nearest(name: str, prefix: str = "") -> str:
    """The hint for an unknown name: the same one in another section, else the most similar one of its section.

    Args:
        name: what was found.
        prefix: ``--`` for an option; sections are none.
    """
    names = [full for full, field in _fields().items() if "." in full or not (section_of(field) and prefix)]
    if prefix:
        names += ["resume", "profile", "print_config", "version"]
    section, _, last = name.rpartition(".")
    same = [full for full in names if full.rpartition(".")[2] == last]
    close = difflib.get_close_matches(name, same, n=1, cutoff=0.0)
    if not close and is_section(section):
        close = _similar(last, [full for full in names if full.startswith(f"{section}.")])
    if not close and not is_section(section):  # else the section's own name makes everything in it look similar
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    close = close or _similar(last, names)
    return f"; did you mean {prefix}{close[0]}?" if close else "; --help lists every field"


def _similar(last: str, names: Sequence[str]) -> list[str]:
    """Of some full names the one whose last part is most similar."""
    by_last = {full.rpartition(".")[2]: full for full in reversed(names)}
    return [by_last[match] for match in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)]


def is_section(name: object) -> bool:
    """Whether a name is that of a section of the configuration."""
    field = Config.model_fields.get(str(name))
    return field is not None and section_of(field) is not None


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a section; None for a field that is none."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _fields() -> dict[str, FieldInfo]:
    """Every field and section by its full name."""
    found: dict[str, FieldInfo] = {}
    for name, field in Config.model_fields.items():
        found[name] = field
        if section := section_of(field):
            found |= {f"{name}.{key}": below for key, below in section.model_fields.items()}
    return found


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hpcdd train",
        usage="hpcdd train [CONFIG] [--section.key VALUE ...] [--resume] [--profile] [--print_config]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--print_config", action="store_true", help="Print the resolved configuration; train nothing.")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Go on with the run in --output, or else with the newest unfinished runs/NAME-K; without CONFIG with its "
        "own configuration. (An --output that holds an unfinished run is gone on with also without --resume.)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="Leave a trace of ten steps of every phase and rank in the run directory's profile/, for Perfetto.",
    )
    group: argparse._ActionsContainer = parser
    for name, field in _fields().items():
        description = " ".join((field.description or "").split()).replace("%", "%%")
        if section_of(field):
            group = parser.add_argument_group(name, description)
            continue
        default = "" if field.default is None else f" (default: {_shown(field.default)})"
        group.add_argument(
            f"--{name}",
            dest=name,
            metavar=_type_name(field.annotation, field.metadata),
            default=argparse.SUPPRESS,
            help=f"{description}{default}",
        )
    return parser


def _joined(argv: Sequence[str]) -> list[str]:
    """``--name -1e-3`` as ``--name=-1e-3``: argparse takes only plain negative numbers for values (and no ``--``)."""
    joined: list[str] = []
    for word in argv:
        if re.match(r"-[.\d]|--$", word) and joined and re.fullmatch(r"--[^=]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _unknown(words: Sequence[str]) -> Iterator[str]:
    previous = ""
    for word in words:
        if word.startswith("-"):
            name = word.lstrip("-").partition("=")[0]
            if is_section(name):
                field = next(full for full in _fields() if full.startswith(f"{name}."))
                yield f"command line: --{name} is a section; name a field of it, such as --{field}"
            else:
                yield f"command line: {word.partition('=')[0]} is unknown{nearest(name, prefix='--')}"
        elif not previous.startswith("-"):
            yield f"command line: {word!r} belongs to no option; CONFIG comes first, and lists have commas: 2,2"
        previous = word


def _value(text: str, field: FieldInfo) -> Any:
    """The value behind an option: text for a field that is text, else YAML; ``2,3`` is short for ``[2,3]``."""
    kinds = [get_origin(kind) or kind for kind in _members(field.annotation)]
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


def _type_name(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """How a type is written on the command line, with its range."""
    if hasattr(annotation, "__metadata__"):
        return _type_name(annotation.__origin__, annotation.__metadata__)
    if get_origin(annotation) in (Union, UnionType):
        return "|".join(_type_name(member) for member in get_args(annotation))
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        inner = [_type_name(member) for member in get_args(annotation) if member is not ...]
        return f"[{','.join(inner)}{',...' if ... in get_args(annotation) else ''}]"
    words = {dict: "mapping", NoneType: "null", bool: "true|false"}
    name = words.get(get_origin(annotation) or annotation) or annotation.__name__
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


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
