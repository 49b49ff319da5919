"""``hpcdd completion``: a script by which a shell completes commands, options, choices and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from .parser import Parser, file_name, file_path, parse

SHELLS = ("bash", "zsh", "fish")
_FILES = ("config:output", "config:data.file", "file", "paths")
"""Attributes of options and arguments that name files, where their type does not say so."""
_UNDER_MPIRUN = """
# Behind mpirun, from the word hpcdd on; where nothing else completes mpirun.
_hpcdd_under_mpirun() {
  local i
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ ${COMP_WORDS[i]} == hpcdd ]]; then
      COMP_WORDS=("${COMP_WORDS[@]:i}")
      COMP_CWORD=$((COMP_CWORD - i))
      _shtab_hpcdd
      return
    fi
  done
}
for _hpcdd_launcher in mpirun mpiexec; do
  complete -p $_hpcdd_launcher &>/dev/null || complete -o default -F _hpcdd_under_mpirun $_hpcdd_launcher
done
"""


def declare(parser: Parser) -> None:
    """Adds the options."""
    parser.describe(
        "Prints a script for your shell that completes commands, options, choices and files. The script is\n"
        "static: completion does not start Python.",
        'eval "$(hpcdd completion bash)"       in ~/.bashrc',
        'eval "$(hpcdd completion zsh)"        in ~/.zshrc, after compinit',
        "hpcdd completion fish > ~/.config/fish/completions/hpcdd.fish",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def run_without_mpi(arguments: Sequence[str]) -> None:
    """Prints the script of a shell."""
    print(script(parse("completion", declare, arguments).given.shell))


def script(shell: str) -> str:
    """The script of a shell, made from the parsers of all commands."""
    import shtab

    from ..config import options
    from .main import parser

    top = parser()
    fields = options.fields()
    for action in _actions(top):
        if action.dest.startswith(options.PREFIX):
            action.choices = options.choices(fields[action.dest.removeprefix(options.PREFIX)]) or None
        if action.metavar in ("FOLDER", "STUDYDIR"):
            setattr(action, "complete", shtab.DIRECTORY)  # noqa: B010 - where shtab looks for it
        elif action.type in (file_path, file_name) or action.dest in _FILES:
            setattr(action, "complete", shtab.FILE)  # noqa: B010
    made: str = shtab.complete(top, shell)
    return made + (_UNDER_MPIRUN if shell == "bash" else "")


def _actions(parser: Parser) -> Iterator[argparse.Action]:
    """Options and arguments of a parser and of all commands below it, without hidden ones."""
    yield from (action for action in parser.declared()._actions if action.help != argparse.SUPPRESS)
    for below in parser.commands.values():
        yield from _actions(below)
