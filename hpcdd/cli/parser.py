"""The parser of every command: options with hyphens, hints for what is mistyped, fields of the configuration."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..core.errors import UserError
from ..core.files import expanded
from ..core.texts import hint

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ..config.options import Overrides

OWN: dict[str, Any] = {
    "dest": "user_factory",
    "metavar": "PACKAGE.MODULE:FACTORY",
    "help": "code of your own CNN that may run (or name its module in HPCDD_MODEL_MODULES)",
}
"""The option --own."""
_OF_TRAIN = ("--resume", "--profile", "--print-config")
_CLEARER = (
    (r"argument (\S+): expected one argument", r"\1 needs a value"),
    (r"argument (\S+): ignored explicit argument .*", r"\1 takes no value"),
)
"""Patterns of argparse's messages, and clearer messages that need no further hint."""


@dataclass(frozen=True)
class Parsed:
    """What stands on a command line.

    Attributes:
        command: which one, with the kind of it: ``bench step``.
        given: its options and arguments.
        file: the YAML file that comes first; None without one.
        overrides: fields of the configuration, and what is wrong with the command line.
    """

    command: str
    given: argparse.Namespace
    file: str | None
    overrides: Overrides


class Parser(argparse.ArgumentParser):
    """Of a command, or of all commands or kinds of one; every mistake on its command line is a UserError."""

    def __init__(self, *, declare: Declare | None = None, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)
        self._declare = declare
        self._file = ""  # metavar of the YAML file that comes first, where the configuration has options
        self._required = ""
        self._hidden: list[argparse._ArgumentGroup] = []
        self._what = ""
        self.commands: dict[str, Parser] = {}

    def describe(self, text: str, *examples: str, usage: str | None = None) -> None:
        """What ``--help`` says before and after the options."""
        self.description, self.usage = text, usage
        self.epilog = "\n  ".join([f"example{'s' * (len(examples) > 1)}:", *examples])

    def add_fields(self, metavar: str = "CONFIG", help_: str = "", *, required: str = "", shown: bool = False) -> None:
        """A YAML file as first argument, and an option for each field of the configuration; after all other options.

        Args:
            metavar, help_: of the file.
            required: what to name where it is missing; empty: it may be.
            shown: whether ``--help`` lists the fields.
        """
        from ..config import options

        self._file, self._required = metavar, required
        self.add_argument("file", metavar=metavar, nargs="?", help=help_ or "YAML file (default: the quick start)")
        groups = options.add_to(self)
        self._hidden = [] if shown else groups

    def add_commands(self, what: str, commands: Mapping[str, tuple[str, Declare]], metavar: str = "COMMAND") -> None:
        """Commands, or kinds of one, by name: what ``--help`` says of each, and what declares its options.

        Args:
            what: they are, for messages.
            commands: by name.
            metavar: stands for one of them.
        """
        self._what = what
        made = self.add_subparsers(title=f"{metavar.lower()}s", metavar=metavar, parser_class=Parser)
        for name, (summary, declare) in commands.items():
            self.commands[name] = made.add_parser(
                name, help=summary.replace("%", "%%"), prog=f"{self.prog} {name}", declare=declare
            )

    def declared(self) -> Parser:
        """This parser with its options, which are added when they are needed."""
        declare, self._declare = self._declare, None
        if declare is not None:
            declare(self)
        return self

    def read(self, arguments: Sequence[str]) -> Parsed:
        """Reads a command line.

        Raises:
            UserError: what is wrong with it. Of a command with fields of the configuration most of it stands in the
                result instead, for it is reported with the mistakes in the file.
            SystemExit: after ``--help``.
        """
        self.declared()
        if self.commands and not (arguments and arguments[0] in self._option_string_actions):
            return self._command(arguments).read(arguments[1:])
        spelled = self._spelled(arguments)
        if self._file and not (spelled and not spelled[0].startswith("-")):
            spelled.insert(0, "")  # argparse would take the value of an option that it does not know for the file
        mixed = not (self._file or self.commands)  # options may stand between the arguments
        given, unknown = (self.parse_known_intermixed_args if mixed else self.parse_known_args)(spelled)
        from ..config import options

        problems, command = self._unknown(unknown), self.prog.removeprefix("hpcdd ")
        if not self._file:
            if problems:
                raise UserError("\n".join(problems))
            return Parsed(command, given, None, options.Overrides())
        file = vars(given).pop("file") or None
        if file is None and self._required:
            raise UserError(
                f"command line: {self._required} is missing; name a YAML file as the first argument; {self._see}"
            )
        overrides = options.given(given)
        return Parsed(command, given, file, options.Overrides(overrides.tree, (*problems, *overrides.problems)))

    @property
    def _see(self) -> str:
        return f"see `{self.prog} --help`"

    def error(self, message: str) -> NoReturn:
        """Raises UserError, for the caller to print it: under mpirun root alone does, and all ranks exit."""
        for pattern, replacement in _CLEARER:
            if re.fullmatch(pattern, message):
                raise UserError(f"command line: {re.sub(pattern, replacement, message)}")
        raise UserError(f"command line: {message.removeprefix('argument ')}; {self._see}")

    def format_help(self) -> str:
        """The help, without the fields of the configuration where they are not this command's subject."""
        shown = self._action_groups
        self._action_groups = [group for group in shown if group not in self._hidden]
        try:
            return super().format_help()
        finally:
            self._action_groups = shown

    def print_help(self, file: Any = None) -> None:
        """Prints the help; unlike argparse it does not hide that nobody reads it."""
        print(self.format_help(), end="", file=file, flush=True)

    def _command(self, arguments: Sequence[str]) -> Parser:
        names = ", ".join(self.commands)
        if not arguments:
            raise UserError(f"command line: the {self._what} is missing; use one of {names}; {self._see}")
        if arguments[0] not in self.commands:
            close = hint(arguments[0], self.commands, f"use one of {names}")
            raise UserError(f"command line: {arguments[0]!r} is not a {self._what}{close}")
        return self.commands[arguments[0]]

    def _spelled(self, arguments: Sequence[str]) -> list[str]:
        """Options with hyphens; ``--name -1e-3`` as ``--name=-1e-3``: argparse takes only plain numbers for values."""
        spelled: list[str] = []
        for number, word in enumerate(arguments):
            previous = self._option_string_actions.get(spelled[-1]) if spelled else None
            takes_one = previous is not None and previous.nargs is None and bool(self._file)
            if takes_one and re.match(r"-[.\d]|--$", word):
                spelled[-1] += f"={word}"
            elif word == "--":
                return [*spelled, *arguments[number:]]
            elif word.startswith("--"):
                name, equals, value = word.partition("=")
                hyphens = name.replace("_", "-")
                spelled.append((hyphens if hyphens in self._option_string_actions else name) + equals + value)
            else:
                spelled.append(word)
        return spelled

    def _unknown(self, unknown: Sequence[str]) -> list[str]:
        """A line for each word that is no option; a word behind one is taken for its value."""
        stray = f"belongs to no option; put {self._file} first, and write lists with commas: 2,2"
        problems = []
        for previous, word in zip(["", *unknown], unknown, strict=False):
            if word.startswith("-"):
                name = word.partition("=")[0]
                problems.append(f"command line: {name} {self._why(name)}")
            elif not previous.startswith("-"):
                why = stray if self._file else f"is one argument too many; {self._see}"
                problems.append(f"command line: {word!r} {why}")
        return problems

    def _why(self, name: str) -> str:
        bare = name.lstrip("-").replace("_", "-")
        options = [option.lstrip("-") for option in self._option_string_actions if option.startswith("--")]
        if first := next((option for option in options if option.startswith(f"{bare}.")), None):
            return f"is a section; name a field of it, such as --{first}"
        if self._file and f"--{bare}" in _OF_TRAIN:
            return "belongs to `hpcdd train`"
        return f"is unknown{hint(bare, [*options, 'version'], self._see, prefix='--')}"


Declare = Callable[[Parser], None]
"""Adds the options of a command to its parser."""


def parse(command: str, declare: Declare, arguments: Sequence[str]) -> Parsed:
    """Reads what stands behind ``hpcdd COMMAND``; as :meth:`Parser.read`."""
    return Parser(prog=f"hpcdd {command}", declare=declare).read(arguments)


def add_model(parser: Parser) -> None:
    """Adds a trained model and the strategy that predicts."""
    parser.add_argument("run", type=file_path, metavar="RUN", help="directory of a complete run, or its model.h5 alone")
    parser.add_argument(
        "--strategy",
        metavar="NAME",
        help="average, majority, log_pool, dnn, coherent_transfer, coherent_scratch or global, if trained "
        "(default: the coherent model, or the DNN without such a model)",
    )
    parser.add_argument("--own", **OWN)


def file_name(text: str) -> str:
    """The name of a file, for argparse: with ``~`` and variables that a shell has left, see :func:`.files.expanded`.

    Not for words that name many files that are there: they come from patterns, where a dollar is one.

    Raises:
        argparse.ArgumentTypeError: a variable in it is not set, or a home is unknown.
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
        argparse.ArgumentTypeError: it is not such a number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
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
