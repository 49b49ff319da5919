"""Completion in real shells: commands, options, choices and files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hpcdd.cli import completion
from hpcdd.cli.main import COMMANDS

from ..waiting import LIMIT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the scripts, and a file to be completed."""
    made = tmp_path_factory.mktemp("completion")
    for shell in completion.SHELLS:
        (made / shell).write_text(completion.script(shell))
    (made / "mine.yaml").touch()
    return made


def said(*command: str, cwd: Path) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT, check=True).stdout


def completed(folder: Path, line: str) -> list[str]:
    """What bash offers for the last word of a line."""
    program = (
        'source ./bash; line="$1"; read -ra COMP_WORDS <<<"$line"; [[ $line == *" " ]] && COMP_WORDS+=("");'
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); complete=$(complete -p ${COMP_WORDS[0]});"
        '[[ $complete =~ -F\\ ([^ ]+) ]] && "${BASH_REMATCH[1]}"; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return said("bash", "--norc", "-c", program, "-", line, cwd=folder).split()


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("hpcdd ", list(COMMANDS)),
        ("hpcdd ev", ["evaluate"]),
        ("hpcdd train --local.ba", ["--local.batch-size"]),
        ("hpcdd train --print", ["--print-config"]),
        ("hpcdd train mine.yaml --local.ep", ["--local.epochs"]),
        ("hpcdd train --device ", ["auto", "cpu", "cuda"]),
        ("hpcdd train --baseline.enabled ", ["true", "false"]),
        ("hpcdd train mi", ["mine.yaml"]),
        ("hpcdd train --data.file mi", ["mine.yaml"]),
        ("hpcdd plan mine.yaml --ranks", ["--ranks-per-host"]),
        ("hpcdd prepare f", ["faces", "folder"]),
        ("hpcdd prepare folder --fit ", ["resize", "crop", "pad"]),
        ("hpcdd bench step --st", ["--steps"]),
        ("hpcdd predict run mi", ["mine.yaml"]),
        ("hpcdd evaluate --split te", ["test"]),
        ("mpirun -n 4 hpcdd train --local.ba", ["--local.batch-size"]),
    ],
)
def test_bash_completes(folder: Path, line: str, completions: list[str]) -> None:
    assert completed(folder, line) == completions


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes(folder: Path) -> None:
    for line, word in (("hpcdd ev", "evaluate"), ("hpcdd train --local.ba", "--local.batch-size")):
        offered = said("fish", "--no-config", "-c", f"source ./fish; complete -C '{line}'", cwd=folder)
        assert [text.split("\t")[0] for text in offered.splitlines()] == [word]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_takes_the_script(folder: Path) -> None:
    program = 'autoload -Uz compinit; compinit -u -D; eval "$(<zsh)"; print $_comps[hpcdd]'
    assert said("zsh", "-f", "-c", program, cwd=folder) == "_shtab_hpcdd\n"
