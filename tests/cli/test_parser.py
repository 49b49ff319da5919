"""Options with hyphens or underscores; what is mistyped, in the same words for every command."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.cli import predict, train
from hpcdd.cli.main import main, parser
from hpcdd.cli.parser import parse
from hpcdd.config.options import fields, section_of

from ..parsed import parse as parsed

FIELDS = [name for name, info in fields().items() if not section_of(info)]


def test_every_field_has_an_option_with_hyphens() -> None:
    options = {option for action in parser().commands["train"].declared()._actions for option in action.option_strings}
    assert {f"--{name}".replace("_", "-") for name in FIELDS} <= options
    assert [option for option in options if "_" in option] == []


@pytest.mark.parametrize("name", [name for name in FIELDS if "_" in name])
def test_both_spellings_of_a_field_mean_the_same(name: str) -> None:
    section, _, key = name.rpartition(".")
    for arguments in ([f"--{name}", "null"], [f"--{name}=null"], [f"--{name.replace('_', '-')}", "null"]):
        tree = train.request(arguments).overrides.tree
        assert (tree[section] if section else tree) == {key: None}


@pytest.mark.parametrize("word", ["--print-config", "--print_config"])
def test_both_spellings_of_a_switch_mean_the_same(word: str) -> None:
    assert parsed([word])[1]


def test_only_the_name_of_an_option_is_respelled() -> None:
    config = parsed(["--name", "a_b", "--output=c_d", "--model.name", "m_n:f", "--model.options", "{g_h: i_j}"])[0]
    assert (config.name, config.output, config.model.options) == ("a_b", "c_d", {"g_h": "i_j"})
    given = parse("predict", predict.declare, ["run", "--skip_bad", "--", "--a_b.png"]).given
    assert (given.paths, given.skip_bad) == (["--a_b.png"], True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--outptu", "x"], "--outptu is unknown; did you mean --output?"),
        (["train", "--local.batch_sise", "8"], "--local.batch_sise is unknown; did you mean --local.batch-size?"),
        (["evaluate", "run", "--outptu", "x"], "--outptu is unknown; did you mean --output?"),
        (["study", "c.yaml", "--varaint", "x", "--dry-run"], "--varaint is unknown; did you mean --variant?"),
        (["scale", "c.yaml", "--phasse", "local"], "--phasse is unknown; did you mean --phases?"),
        (["scale", "c.yaml", "--batch-size", "8"], "--batch-size is unknown; did you mean --local.batch-size?"),
        (["report", "run", "--ouput", "x"], "--ouput is unknown; did you mean --output?"),
        (["predict", "run", "x", "--stratgy", "dnn"], "--stratgy is unknown; did you mean --strategy?"),
        (["export", "run", "x.pt2", "--stratgy", "dnn"], "--stratgy is unknown; did you mean --strategy?"),
        (["plan", "-n", "2", "--ranks_per_hots", "2"], "--ranks_per_hots is unknown; did you mean --ranks-per-host?"),
        (["plan", "-n", "2", "--resume"], "--resume belongs to `hpcdd train`"),
        (["bench", "step", "--stps", "2"], "--stps is unknown; did you mean --steps?"),
        (["bench", "stpe"], "'stpe' is not a benchmark; did you mean step?"),
        (["prepare", "idx", "a", "b.h5", "--compresion", "0"], "--compresion is unknown; did you mean --compression?"),
        (["info", "x"], "'x' is one argument too many; see `hpcdd info --help`"),
        (["completion", "fsh"], "SHELL: invalid choice: 'fsh' (choose from "),
        (["inof"], "'inof' is not a command; did you mean info?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_mistyped(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("kind: strong\n" if arguments[0] == "scale" else "matrix: {seed: [0]}\n")
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hpcdd: command line: {message}")
