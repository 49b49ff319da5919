"""From YAML and command line to a configuration; every mistake with its place, all at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcdd.config.loading import QUICKSTART, to_yaml
from hpcdd.config.schema import Config
from hpcdd.config.sections import Settings
from hpcdd.core.errors import UserError

from ..parsed import parse

File = Callable[[str | bytes], str]
SECTIONS = {name: type(value) for name, value in Config() if isinstance(value, Settings)}


def what_is_set(config: Config) -> dict[str, Any]:
    return config.model_dump(exclude_defaults=True)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> File:
    """Writes c.yaml into the current folder and gives its name back."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> str:
        Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return "c.yaml"

    return write


def mistakes(*argv: str) -> list[str]:
    with pytest.raises(UserError) as error:
        parse(argv)
    return str(error.value).splitlines()


def test_the_file_wins_over_the_defaults_and_the_environment_does_not_count(
    file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SEED", "seed", "NAME", "LOCAL__EPOCHS", "local.epochs"):
        monkeypatch.setenv(name, "9")
    monkeypatch.setenv("LOCAL", '{"epochs": 9}')
    assert what_is_set(parse([file("local: {epochs: 3}\n")])[0]) == {"local": {"epochs": 3}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_utf_8_or_utf_16_with_its_mark(file: File, encoding: str) -> None:
    assert parse([file("data: {file: größe.h5}\n".encode(encoding))])[0].data.file == "größe.h5"


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("seed: 1\ndata: {file: größe.h5}".encode("latin-1"), ["c.yaml:2", "0xf6", "'ö'", "iconv -f LATIN1 -t UTF-8"]),
        ("seed: 1\n".encode("utf-16-le"), ["c.yaml", "UTF-16LE", "byte order mark", "iconv -f UTF-16LE -t UTF-8"]),
        ("seed: 1\n".encode("utf-16-be"), ["c.yaml", "UTF-16BE", "byte order mark", "iconv -f UTF-16BE -t UTF-8"]),
    ],
)
def test_another_encoding_is_named_with_the_way_to_convert_it(file: File, content: bytes, fragments: list[str]) -> None:
    (text,) = mistakes(file(content))
    assert [fragment for fragment in fragments if fragment not in text] == []


@pytest.mark.parametrize("text", ["1e-6", "1E-6", "1.0e-6", "0.000001", "'1e-6'"])
def test_a_float_needs_no_dot_in_the_file(file: File, text: str) -> None:
    rate = parse([file(f"local: {{learning_rate: {text}}}")])[0].local.learning_rate
    assert isinstance(rate, float)
    assert rate == 1e-6


@pytest.mark.parametrize("text", ["2,3", "[2,3]", "[2, 3]", "2, 3", "[2 , 3 ]"])
def test_lists_on_the_command_line(text: str) -> None:
    assert parse(["--decomposition.grid", text])[0].decomposition.grid == (2, 3)
    assert parse([f"--decomposition.grid={text}"])[0].decomposition.grid == (2, 3)


def test_one_number_is_one_for_all_axes_or_a_list_of_one() -> None:
    config, _ = parse(["--decomposition.overlap", "2", "--decomposition.grid", "3"])
    assert config.decomposition.overlap == 2
    assert config.decomposition.grid == (3,)


def test_the_last_of_two_equal_options_counts() -> None:
    config, _ = parse(["--seed", "1", "--decomposition.grid", "4,4", "--seed", "2", "--decomposition.grid", "3,3"])
    assert (config.seed, config.decomposition.grid) == (2, (3, 3))


def test_options_of_an_own_cnn_replace_those_of_the_file_as_a_whole(file: File) -> None:
    written = file("model: {name: 'a:b', options: {x: 1, y: 2}}")
    assert parse([written, "--model.options", "{y: 3, z: [4, null]}"])[0].model.options == {"y": 3, "z": [4, None]}


def test_null_takes_a_setting_of_the_file_back(file: File) -> None:
    assert parse([])[0].decomposition.grid == (2, 2)
    assert parse(["--decomposition.grid", "null"])[0].decomposition.grid is None
    written = file("output: x\nmodel: {dropout: [0.1, 0.2]}\nlocal: {early_stopping: 2}\n")
    config, _ = parse([written, "--output", "null", "--model.dropout", "null", "--local.early_stopping=null"])
    assert what_is_set(config) == {}
    none = ["--decomposition.grid", "null", "--decomposition.overlap", "0"]
    boxes, _ = parse([*none, "--decomposition.boxes", "[[[0, 0], [4, 4]], [[4, 4], [8, 8]]]"])
    assert boxes.decomposition.boxes == (((0, 0), (4, 4)), ((4, 4), (8, 8)))


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}", "null"])
def test_an_empty_file_means_the_defaults(file: File, text: str) -> None:
    assert parse([file(text)]) == (Config(), False)


def test_print_config_is_no_setting(file: File) -> None:
    assert parse([file("{}"), "--print_config", "--seed", "3"]) == (Config(seed=3), True)
    (text,) = mistakes(file("print_config: true"))
    assert "print_config is unknown" in text


CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[2] / "configs").glob("*.yaml")
    if not path.name.startswith("scaling_")  # studies, see tests/studies
)


def test_the_quick_starts_recipe_is_for_its_own_family() -> None:
    assert parse(["--model.name", "fast2"])[0].local.optimizer == "muon"
    for name in ("vgg2", "resnet8", "mine:make"):
        config = parse(["--model.name", name, "--baseline.enabled", "true"])[0]
        defaults = Config()
        for section in ("local", "coherent", "baseline"):
            of_section, of_default = getattr(config, section), getattr(defaults, section)
            for field in ("optimizer", "learning_rate", "schedule", "batch_size", "label_smoothing", "precision"):
                assert getattr(of_section, field) == getattr(of_default, field), (name, section, field)
        assert config.coherent.dnn_start == "pool"
        assert config.local.epochs == parse([])[0].local.epochs


@pytest.mark.parametrize("path", [QUICKSTART, *CONFIGS], ids=lambda path: path.name)
def test_the_configurations_that_come_along_are_valid(path: Path) -> None:
    config, _ = parse([str(path)])
    assert re.fullmatch(r"[\w-]+", config.name)
    assert config.name != "run"


def test_without_a_file_the_quick_start_runs_and_stands_among_the_examples() -> None:
    assert CONFIGS
    assert parse([]) == parse([str(QUICKSTART)])
    (shown,) = [path for path in CONFIGS if path.name == "quickstart.yaml"]
    assert shown.read_text() == QUICKSTART.read_text()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("$HPCDD_TEST/x", "/a$b/x"),
        ("${HPCDD_TEST}x", "/a$bx"),
        ("~/x", "/home/me/x"),
        ("~", "/home/me"),
        ("a~/$/5$", "a~/$/5$"),
        ("a$$b", "a$b"),
    ],
)
def test_a_path_is_resolved_as_by_a_shell(file: File, text: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCDD_TEST", "/a$b")
    monkeypatch.setenv("HOME", "/home/me")
    config = parse([file(f"output: '{text}'\ndata: {{file: '{text}'}}")])[0]
    assert (config.output, config.data.file) == (path, path)
    assert parse(["--output", text, "--data.file", text])[0].output == path
    assert Config.model_validate(config.model_dump(mode="json")) == config  # what is recorded is not resolved again


@pytest.mark.parametrize("text", ["$HPCDD_NONE/x", "x/${HPCDD_NONE}", "~hpcdd_none/x"])
def test_a_path_that_cannot_be_resolved_is_refused(file: File, text: str) -> None:
    (in_file,) = mistakes(file(f"output: {text}"))
    (on_line,) = mistakes("--output", text)
    for told, prefix in ((in_file, "c.yaml:1: output"), (on_line, "command line: output")):
        assert told.startswith(prefix)
        assert re.search(r"hpcdd_none", told, re.IGNORECASE)
        assert re.search(r"write (\$\$|\./~)", told)


def test_the_yaml_names_every_field_but_output_and_runs_as_a_file(file: File) -> None:
    config = Config(name="a", output="x", seed=3, local={"learning_rate": 1e-6, "weight_decay": 1e22})
    text = to_yaml(config)
    tree = yaml.safe_load(text)
    assert {*tree, "output"} == set(Config.model_fields)
    assert [set(tree[name]) for name in SECTIONS] == [set(SECTIONS[name].model_fields) for name in SECTIONS]
    assert parse([file(text)])[0] == config.model_copy(update={"output": None})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local:\n  epoch: 3\n", "c.yaml:2: local.epoch is unknown; did you mean local.epochs?"),
        ("model: {zyx: 3}", "c.yaml:1: model.zyx is unknown"),
        ("local: {hidden: [2]}", "c.yaml:1: local.hidden is unknown"),  # of another section
        ("seed: 1:30", "c.yaml:1: seed is '1:30': input should be a valid integer"),
        ("local: {epochs: yes}", "c.yaml:1: local.epochs is 'yes': input should be a valid integer"),
        ("local: {hidden: [3]}", "c.yaml:1: local.hidden is unknown; did you mean aggregation.hidden?"),
        ("decomposition: {gird: [3]}", "c.yaml:1: decomposition.gird is unknown; did you mean decomposition.grid?"),
        ("local: {learning_rate: .inf}", "c.yaml:1: local.learning_rate is '.inf': input should be a valid number"),
        ("decomposition: {boxes: [[[0], [4]]], grid: [2]}", "decomposition.boxes and decomposition.grid are both set"),
        ("decomposition: {boxes: [[[0], [4]]], uniform: true}", "decomposition.uniform applies to a grid"),
        ("decomposition: {boxes: [[[0], [4]]], overlap: 1}", "decomposition.overlap applies to a grid"),
        ("model: {name: resnet20, dropout: [0, 0]}", "c.yaml:1: model.dropout has no effect on 'resnet20'"),
        ("name: a\nmodel: {name: resnet21}", "c.yaml:2: model.name is 'resnet21'; resnetM has M = 6n+2 layers"),
        ("local: {epochs: 3}\nlocal: {epochs: 2}", "c.yaml:2: not valid YAML: the key 'local' occurs twice"),
        ("local:\n  epochs: 3\n  epochs: 2", "c.yaml:3: not valid YAML: the key 'epochs' occurs twice"),
        ("local:\n  epochs: [1\nseed: 3", "c.yaml:3: not valid YAML: "),
        (
            "coherent: {starts: [transfer, transfer]}",
            "c.yaml:1: coherent.starts is ['transfer', 'transfer']; name each",
        ),
        ("coherent: {starts: transfer}", "c.yaml:1: coherent.starts is 'transfer': input should be a valid tuple"),
        ("coherent:\n  starts: [transfr]", "c.yaml:2: coherent.starts[0] is 'transfr': input should be 'transfer' or"),
        ("coherent: {dnn_start: fresh, starts: [scratch]}", "c.yaml:1: coherent.dnn_start has no effect on a start"),
        ("coherent: {dropout_scale: 1.5}", "c.yaml:1: coherent.dropout_scale is 1.5: input should be less than or"),
        ("reduction: [fast]", "c.yaml:1: reduction is ['fast']: input should be 'ordered' or 'fast'"),
        ("placement: root", "c.yaml:1: placement is unknown; did you mean aggregation.placement?"),
    ],
)
def test_one_mistake_in_the_file_is_one_line_with_its_place(file: File, text: str | bytes, message: str) -> None:
    (mistake,) = mistakes(file(text))
    assert message in mistake


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--local.epoch=3"], "command line: --local.epoch is unknown; did you mean --local.epochs?"),
        (["--grid", "3"], "command line: --grid is unknown; did you mean --decomposition.grid?"),
        (["--local.epochs", "2.5"], "command line: local.epochs is 2.5: input should be a valid integer"),
        (["--seed", "-1"], "command line: seed is -1: input should be greater than or equal to 0"),
        (["--decomposition.boxes", "[0,0],[4,4]]"], "command line: decomposition.boxes is '[0,0],[4,4]]', which"),
        (["--model.options", "{a"], "command line: model.options is '{a', which can't be parsed"),
        (["--model.options", "[1]"], "command line: model.options is [1]: input should be a valid dictionary"),
        (["--decomposition.overlap", "null"], "command line: decomposition.overlap is null: input should be"),
        (
            ["--decomposition.grid", "2", "3"],
            "command line: '3' belongs to no option; put CONFIG first, and write lists with commas",
        ),
        (["--seed", "3", "stray"], "command line: 'stray' belongs to no option"),
        (["--local.momentum", "0.5"], "command line: local.momentum is 0.5, but it has no effect"),
        (["--coherent.starts", "transfer,transfer"], "command line: coherent.starts is ['transfer', 'transfer']; name"),
        (["--coherent.starts", "null"], "command line: coherent.starts is null: input should be a valid tuple"),
        (["--local.optimizer", "adamx", "--local.momentum", "0.5"], "command line: local.optimizer is 'adamx'"),
    ],
)
def test_one_mistake_on_the_command_line_is_one_line(file: File, arguments: list[str], message: str) -> None:
    (mistake,) = mistakes(file("{}"), *arguments)
    assert mistake.startswith(message)


def test_all_mistakes_of_file_and_command_line_are_reported_at_once(file: File) -> None:
    text = (
        "device: gpu\nseed: -1\nlocal: {epochs: 0, optimizr: sgd, learning_rate: x}\nmodel: {name: vgg9, wdth: 3}\n"
        "decompositon: {grid: [1]}\naggregation: {hidden: [0], momentum: .5}\n"
    )
    reported = mistakes(
        file(text), "--local.epohcs", "3", "--data.file", "x", "--local.batch_size", "1", "stray", "--zyx=1"
    )
    expected = [
        "c.yaml:1: device", "c.yaml:2: seed", "c.yaml:3: local.epochs", "c.yaml:3: local.learning_rate",
        "c.yaml:3: local.optimizr", "c.yaml:4: model.wdth", "c.yaml:4: model.name", "c.yaml:5: decompositon",
        "c.yaml:6: aggregation.hidden[0]", "c.yaml:6: aggregation.momentum", "command line: --local.epohcs",
        "command line: local.batch_size", "command line: 'stray'", "command line: --zyx",
    ]  # fmt: skip
    assert sorted(line.split(" is ")[0].split(" belongs")[0] for line in reported) == sorted(expected)


def test_a_mistake_makes_no_others(file: File) -> None:
    (mistake,) = mistakes(file("local: {optimizer: sdg, momentum: 0.5}"))
    assert mistake.startswith("c.yaml:1: local.optimizer is 'sdg'")
    (mistake,) = mistakes(file("model: {nam: resnet20, dropout: [0.1, 0.2]}\nlocal: {momentum: 0.9}"))
    assert mistake.startswith("c.yaml:1: model.nam is unknown; did you mean model.name?")


def test_one_start_needs_no_brackets_and_none_leaves_the_phase_out() -> None:
    assert parse(["--coherent.starts", "scratch"])[0].coherent.starts == ("scratch",)
    assert parse(["--coherent.starts", "[]"])[0].coherent.starts == ()
