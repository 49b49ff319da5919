"""The command line of ``prepare``: help for every kind, hints for what is mistyped."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hpcdd.cli import prepare
from hpcdd.core.errors import UserError
from hpcdd.data.prepare.importers import FILE_PER_IMAGE, IMPORTERS, WITHOUT_SOURCE


@pytest.mark.parametrize("kind", IMPORTERS)
def test_the_help_of_a_kind_has_its_options_and_an_example(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        prepare.request([kind, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: hpcdd prepare {kind}")
    assert ("\n  SOURCE " in text) == (kind not in WITHOUT_SOURCE)
    for option in ("--test-fraction", "--grid", "--overlap", "--compression", "--coarse", "--name"):
        assert option in text
    for option in ("--skip-bad", "--threads"):
        assert (option in text) == (kind in FILE_PER_IMAGE)
    assert "example" in text


@pytest.mark.parametrize(
    "command", [example for importer in IMPORTERS.values() for example in importer.EXAMPLES], ids=lambda c: c[14:45]
)
def test_examples_are_understood(command: str) -> None:
    program, first, *arguments = shlex.split(re.sub(r"   \(.*\)$", "", command))
    assert (program, first) == ("hpcdd", "prepare")
    request = prepare.request(arguments)
    assert request.kind == arguments[0]
    assert request.out.suffix == ".h5"


def test_commands_of_the_documentation_are_understood() -> None:
    text = (Path(__file__).parents[2] / "docs/how-to/use-your-own-data.md").read_text()
    commands = re.findall(r"hpcdd prepare ([a-z0-9]+ [^`\n#|]*\.h5[^`\n#|]*)", text)
    assert {command.split()[0] for command in commands} >= set(IMPORTERS) - {"cifar100", "npy"}
    for command in commands:
        assert prepare.request(shlex.split(command)).out.suffix == ".h5"


def test_the_options_of_a_kind_are_separated() -> None:
    request = prepare.request(["nifti", "ct", "out.h5", "--window", "-600", "1500", "--size", "4", "5", "6"])
    assert request.options == {"window": [-600.0, 1500.0], "size": [4, 5, 6]}
    assert (request.source, request.out) == (Path("ct"), Path("out.h5"))
    request = prepare.request(["phantom", "out.h5", "--samples", "9"])
    assert (request.source, request.out, request.options["samples"]) == (None, Path("out.h5"), 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifar"], "command line: 'cifar' is not a kind of source; did you mean cifar10?"),
        (["folders", "a", "b"], "'folders' is not a kind of source; did you mean folder?"),
        (["xyz"], "'xyz' is not a kind of source; use one of cifar10, cifar100, "),
        (["idx", "a", "b.h5", "--gird", "2,2"], "command line: --gird is unknown; did you mean --grid?"),
        (
            ["idx", "a", "b.h5", "--window", "1", "2"],
            "command line: --window is unknown; see `hpcdd prepare idx",
        ),
        (["idx", "a", "b.h5", "--train-sample", "6"], "did you mean --train-samples?"),
        (["idx", "a", "b.h5", "--skip-bad"], "--skip-bad is unknown"),
        (["idx", "a", "b.h5", "c.h5"], "'c.h5' is one argument too many"),
    ],
)
def test_what_is_mistyped(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare.request(arguments)
    assert message in str(caught.value)
