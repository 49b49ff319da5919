"""How the parsers of all commands are made."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..core.errors import UserError
from ..core.files import expanded

if TYPE_CHECKING:
    from pydantic import BaseModel

LAYOUT: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
COMMON: dict[str, Any] = {**LAYOUT, "exit_on_error": False}
"""For parsers that leave what they don't know to the configuration."""
OWN: dict[str, Any] = {
    "metavar": "PACKAGE.MODULE:FACTORY",
    "help": "admits this code of your own CNN, which is then run (or its module: HPCDD_MODEL_MODULES)",
}
"""The option --own."""


class StrictParser(argparse.ArgumentParser):
    """Reports what is wrong as the rest of hpcdd does: in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{self.prog.removeprefix('hpcdd ')}: {message}; see `{self.prog} --help`")


def file_name(text: str) -> str:
    """The name of a file, for argparse: with ``~`` and variables that a shell has left, see :func:`.files.expanded`.

    Not for words that name many files that are there: they come from patterns, where a dollar is one.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        return expanded(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def file_path(text: str) -> Path:
    """As :func:`file_name`."""
    return Path(file_name(text))


def positive(text: str) -> int:
    """A number from 1, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def documented(model: type[BaseModel]) -> str:
    """The fields of a YAML file with their documentation, for ``--help``."""
    return "\n".join(
        textwrap.fill(
            " ".join((field.description or "").replace("``", "").split()),
            width=100,
            initial_indent=f"  {name:<9} ",
            subsequent_indent=" " * 12,
        )
        for name, field in model.model_fields.items()
    )
