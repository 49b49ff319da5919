"""Study files: what they hold, and every mistake with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.cli import scale
from hpcdd.core.errors import UserError
from hpcdd.studies.scaling import series

CONFIGS = Path(__file__).parents[2] / "configs"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_study_and_what_the_command_line_changes(tmp_path: Path) -> None:
    study = write(tmp_path / "s.yaml", "kind: weak\nranks: [1, 2]\nconfig:\n  name: a\n  seed: 3\n")
    plain = scale.request([study])
    assert plain.study.kind == "weak"
    assert (plain.config.name, plain.config.seed) == ("a", 3)
    assert plain.output == Path("s.jsonl")
    changed = scale.request([study, "--ranks", "4", "--repeats", "7", "--output", "x/y.jsonl", "--seed", "4"])
    assert changed.study.ranks == (4,)
    assert changed.study.repeats == 7
    assert changed.config.seed == 4
    assert changed.output == Path("x/y.jsonl")


def test_a_series_is_what_can_be_compared(tmp_path: Path) -> None:
    study = write(tmp_path / "s.yaml", "kind: strong\n")
    first = series(scale.request([study]))
    assert series(scale.request([study, "--ranks", "2", "--repeats", "9", "--progress", "off"])) == first
    assert series(scale.request([study, "--seed", "1"])) != first
    assert series(scale.request([write(tmp_path / "t.yaml", "kind: strong\nsteps: 11\n")])) != first


@pytest.mark.parametrize("name", ["scaling_strong", "scaling_weak"])
def test_the_packaged_studies_are_valid(name: str) -> None:
    assert scale.request([str(CONFIGS / f"{name}.yaml")]).study.kind == name.removeprefix("scaling_")


def test_every_mistake_is_reported_with_its_place(tmp_path: Path) -> None:
    text = "kind: stronger\nrepeat: 3\nsteps: 0\nphases: [local, local]\nconfig:\n  local:\n    epoch: 3\n  sed: 1\n"
    study = write(tmp_path / "s.yaml", text)
    with pytest.raises(UserError) as caught:
        scale.request([study, "--ranks", "2,x", "--loca.epochs", "3"])
    assert str(caught.value).splitlines() == [
        f"{study}:1: kind is 'stronger': input should be 'strong' or 'weak'",
        "command line: ranks[1] is 'x': input should be a valid integer, unable to parse string as an integer",
        f"{study}:4: phases is ['local', 'local']; name each once",
        f"{study}:3: steps is 0: input should be greater than 0",
        f"{study}:2: repeat is unknown; did you mean repeats?",
        "command line: --loca.epochs is unknown; did you mean --local.epochs?",
        f"{study}:7: local.epoch is unknown; did you mean local.epochs?",
        f"{study}:8: sed is unknown; did you mean seed?",
    ]
