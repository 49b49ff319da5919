"""Every field: documented, shown by --help, to be set in the file and on the command line; what sections refuse."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from hpcdd.config.loading import from_yaml, to_yaml
from hpcdd.config.options import described
from hpcdd.config.schema import (
    AggregationSettings,
    BaselineSettings,
    CoherentSettings,
    Config,
    DecompositionSettings,
    LocalSettings,
    ModelSettings,
)

from ..parsed import parse


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    yield "", Config
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"{name}.", field.annotation


FIELDS = [(prefix + name, field) for prefix, section in sections() for name, field in section.model_fields.items()]
LEAVES = [(path, field) for path, field in FIELDS if not isinstance(field.default, BaseModel)]


@pytest.mark.parametrize(("path", "field"), FIELDS, ids=[path for path, _ in FIELDS])
def test_every_field_is_documented(path: str, field: Any) -> None:
    assert len(described(field)) > 5


@pytest.fixture(scope="module")
def help_of_options() -> dict[str, str]:
    """What the help says of each option, in one line."""
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    about, *options = " ".join(out.getvalue().partition("\nexamples:")[0].split()).split(" --")
    assert "hpcdd train" in about
    return {text.split()[0]: text for text in options}


@pytest.mark.parametrize(("path", "field"), LEAVES, ids=[path for path, _ in LEAVES])
def test_help_shows_every_field_with_its_documentation_and_default(
    help_of_options: dict[str, str], path: str, field: Any
) -> None:
    text = help_of_options[path.replace("_", "-")]
    assert " ".join(field.description.split()) in text
    if field.default is not None:  # what null means stands in the documentation
        values = field.default if isinstance(field.default, tuple) else [field.default]
        assert f"(default: {','.join(map(str, values))})".lower() in text.lower()


def test_sections_are_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.local.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "name", ["vgg1", "vgg8", "resnet8", "resnet20", "resnet56", "mine:cnn", "a.b_c.d2:Net", "_m:f"]
)
def test_model_names_that_are_taken(name: str) -> None:
    model = ModelSettings(name=name)
    assert model.has_user_factory == (":" in name)
    assert model.vgg_dropout == (0.2, 0.5)


@pytest.mark.parametrize(
    ("name", "explanation"),
    [
        ("vgg0", "N = 1 to 8"),
        ("vgg9", "N = 1 to 8"),
        ("resnet2", "6n\\+2"),
        ("resnet18", "6n\\+2"),
        ("resnet21", "6n\\+2"),
        ("alexnet", "package.module:factory"),
        ("vgg3 ", "package.module:factory"),
        ("", "package.module:factory"),
        ("a:", "package.module:factory"),
        (":f", "package.module:factory"),
        ("a:f()", "package.module:factory"),
        ("os;x:f", "package.module:factory"),
    ],
)
def test_model_names_that_are_refused(name: str, explanation: str) -> None:
    with pytest.raises(ValidationError, match=explanation) as error:
        ModelSettings(name=name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        (ModelSettings, {"width": 0}),
        (ModelSettings, {"local_width": "matching"}),
        (ModelSettings, {"local_width": -1}),
        (ModelSettings, {"dropout": (0.1,)}),
        (ModelSettings, {"dropout": (0.1, 1.0)}),
        (ModelSettings, {"name": "resnet20", "dropout": (0.1, 0.2)}),
        (ModelSettings, {"name": "a:b", "dropout": (0.1, 0.2)}),
        (ModelSettings, {"name": "vgg3", "options": {"a": 1}}),
        (ModelSettings, {"name": "resnet8", "options": {"a": 1}}),
        (LocalSettings, {"epochs": 0}),
        (LocalSettings, {"batch_size": 1}),
        (LocalSettings, {"learning_rate": 0}),
        (LocalSettings, {"learning_rate": float("inf")}),
        (LocalSettings, {"weight_decay": -1e-9}),
        (LocalSettings, {"weight_decay": float("nan")}),
        (LocalSettings, {"optimizer": "sgd", "momentum": 1.0}),
        (LocalSettings, {"optimizer": "adam", "momentum": 0.5}),
        (LocalSettings, {"optimizer": "adamw", "momentum": 0.0}),
        (LocalSettings, {"early_stopping": 0}),
        (LocalSettings, {"precision": "fp16"}),
        (DecompositionSettings, {"grid": (2, 0)}),
        (DecompositionSettings, {"overlap": -1}),
        (DecompositionSettings, {"overlap": (1, -1)}),
        (DecompositionSettings, {"boxes": ()}),
        (DecompositionSettings, {"boxes": [[[0, 0]]]}),
        (DecompositionSettings, {"boxes": [[[-1, 0], [4, 4]]]}),
        (DecompositionSettings, {"boxes": [[[0, 0], [4, 4]]], "grid": (2, 2)}),
        (DecompositionSettings, {"boxes": [[[0, 0], [4, 4]]], "overlap": 2}),
        (Config, {"seed": -1}),
        (Config, {"name": "a b"}),
        (Config, {"name": "a/b"}),
        (Config, {"name": ""}),
        (Config, {"name": "a\n"}),
        (Config, {"device": "gpu"}),
        (Config, {"progress": True}),
        (Config, {"data": {"validation_fraction": 1.0}}),
        (Config, {"data": {"subset": 1}}),
        (Config, {"data": {"classes": (1,)}}),
        (Config, {"data": {"classes": ()}}),
        (Config, {"data": {"classes": ("a", "b", "a")}}),
        (Config, {"data": {"classes": (-1, 0)}}),
        (Config, {"data": {"storage": "disk"}}),
        (Config, {"data": {"memory": 0}}),
        (Config, {"data": {"storage": "stream", "memory": 100}}),
        (Config, {"nonsense": 1}),
        (Config, {"local": {"features": "logits"}}),
        (Config, {"reduction": "slow"}),
        (Config, {"shared_batches": True}),
        (Config, {"checkpoint": {"every": "often"}}),
        (Config, {"checkpoint": {"every": "0 epochs"}}),
        (Config, {"checkpoint": {"every": "1.5 epochs"}}),
        (Config, {"run": {"stall_timeout": 0}}),
        (DecompositionSettings, {"coarse": 2}),
        (AggregationSettings, {"features": "votes"}),
        (AggregationSettings, {"placement": "ranks"}),
        (CoherentSettings, {"starts": "transfer"}),
        (CoherentSettings, {"starts": ("pretrained",)}),
        (CoherentSettings, {"starts": ("transfer", "transfer")}),
        (CoherentSettings, {"starts": ("scratch", "transfer", "scratch")}),
        (CoherentSettings, {"starts": None}),
        (CoherentSettings, {"dnn_start": "fresh", "starts": ("scratch",)}),
        (CoherentSettings, {"dnn_start": None}),
        (CoherentSettings, {"features": "hidden"}),
        (CoherentSettings, {"parallelism": "pipeline"}),
        (CoherentSettings, {"dropout_scale": 1.01}),
        (CoherentSettings, {"dropout_scale": -0.01}),
        (CoherentSettings, {"optimizer": "adam", "momentum": 0.5}),
        (CoherentSettings, {"batch_size": 1}),
        (BaselineSettings, {"enabled": None}),
        (BaselineSettings, {"precision": "fp16"}),
        (Config, {"model": {"name": "resnet20"}, "coherent": {"dropout_scale": 0.5}}),
        (Config, {"coherent": {"features": "probabilities"}}),
    ],
)
def test_values_out_of_range_and_contradictions_are_refused(section: type[BaseModel], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section(**fields)
    section()  # without them nothing is wrong


def test_the_limits_of_ranges_are_taken() -> None:
    assert LocalSettings(batch_size=2, epochs=1, weight_decay=0, early_stopping=1).batch_size == 2
    assert LocalSettings(optimizer="sgd", momentum=0.0).momentum == 0
    assert LocalSettings(optimizer="adam", momentum=0.9).momentum == 0.9  # the default contradicts nothing
    assert DecompositionSettings(boxes=[[[0, 0], [4, 4]]], overlap=0).boxes == (((0, 0), (4, 4)),)
    assert Config(seed=2**64, name="a.b-c+1").seed == 2**64
    assert CoherentSettings(starts=()).starts == ()
    assert CoherentSettings(starts=["scratch", "transfer"], dnn_start="fresh").starts == ("scratch", "transfer")
    assert CoherentSettings(dropout_scale=0).dropout_scale == 0
    assert CoherentSettings(dropout_scale=1).dropout_scale == 1
    assert Config(model={"name": "resnet20"}, coherent={"dropout_scale": 1}).coherent.dropout_scale == 1
    assert Config(model={"name": "mine:cnn"}, coherent={"dropout_scale": 0.5}).coherent.dropout_scale == 0.5


BOXES = "[[[0, 0], [4, 4]], [[4, 4], [8, 8]]]"

# Field: what stands behind its option, and the value that is meant; none is the default.
TRAINING: dict[str, tuple[str, Any]] = {
    "epochs": ("7", 7),
    "batch_size": ("32", 32),
    "optimizer": ("adam", "adam"),
    "learning_rate": ("1e-6", 1e-6),
    "weight_decay": ("0", 0.0),
    "momentum": ("0.5", 0.5),
    "schedule": ("cosine", "cosine"),
    "early_stopping": ("3", 3),
    "bias_learning_rate": ("0.2", 0.2),
    "dense_learning_rate": ("0.5", 0.5),
    "warm_up": ("0.1", 0.1),
    "schedule_ends": ("0.5,0", (0.5, 0.0)),
    "label_smoothing": ("0.1", 0.1),
    "ema": ("0.9", 0.9),
}
SECTIONS = ("local", "aggregation", "coherent", "baseline")
VALUES: dict[str, tuple[str, Any]] = {
    "name": ("other-name", "other-name"),
    "output": ("some/folder", "some/folder"),
    "seed": ("7", 7),
    "device": ("cpu", "cpu"),
    "progress": ("lines", "lines"),
    "reduction": ("fast", "fast"),
    "shared_batches": ("fast", "fast"),
    "checkpoint.every": ("3 epochs", "3 epochs"),
    "run.stall_timeout": ("20", 20.0),
    "comm.gpu_aware": ("true", True),
    "run.report": ("false", False),
    "run.survive": ("true", True),
    "run.tensorboard": ("true", True),
    "data.file": ("a,b [c].h5", "a,b [c].h5"),
    "data.validation_fraction": ("1e-1", 0.1),
    "data.subset": ("500", 500),
    "data.classes": ("3,a cat", (3, "a cat")),
    "data.storage": ("stream", "stream"),
    "data.memory": ("100", 100),
    "decomposition.grid": ("3,2,4", (3, 2, 4)),
    "decomposition.overlap": ("1,2", (1, 2)),
    "decomposition.boxes": (BOXES, (((0, 0), (4, 4)), ((4, 4), (8, 8)))),
    "decomposition.coarse": ("true", True),
    "decomposition.uniform": ("true", True),
    "batched": ("true", True),
    "model.name": ("resnet8", "resnet8"),
    "model.width": ("5", 5),
    "model.local_width": ("3", 3),
    "model.dropout": ("0.1,0.3", (0.1, 0.3)),
    "model.options": ('{"a": [1, 2], "b": "c"}', {"a": [1, 2], "b": "c"}),
    **{f"{section}.{name}": value for section in SECTIONS for name, value in TRAINING.items()},
    **{f"{section}.precision": ("bf16", "bf16") for section in ("local", "coherent", "baseline")},
    "augmentation.flip": ("1,0", (1, 0)),
    "augmentation.translate": ("2", 2),
    "augmentation.alternate": ("true", True),
    "augmentation.cutout": ("3", 3),
    "augmentation.test_flip": ("true", True),
    "model.channels": ("1,2,2", (1, 2, 2)),
    "aggregation.features": ("probabilities", "probabilities"),
    "aggregation.hidden": ("8,4", (8, 4)),
    "aggregation.dropout": ("0.25", 0.25),
    "aggregation.placement": ("distributed", "distributed"),
    "coherent.starts": ("scratch,transfer", ("scratch", "transfer")),
    "coherent.features": ("penultimate", "penultimate"),
    "coherent.dnn_start": ("fresh", "fresh"),
    "coherent.dnn_learning_rate": ("0.3", 0.3),
    "coherent.rate_scale": ("0.5", 0.5),
    "coherent.frozen": ("2", 2),
    "coherent.parallelism": ("data", "data"),
    "coherent.dropout_scale": ("0", 0.0),
    "baseline.enabled": ("true", True),
}
# Fields that have a meaning only together with another one.
COMPANIONS = {
    "model.options": ("model.name", "mine:cnn"),
    "model.channels": ("model.name", "fast3"),
    "coherent.frozen": ("model.name", "fast3"),
    "augmentation.alternate": ("augmentation.flip", (1,)),
    "augmentation.test_flip": ("augmentation.flip", (1,)),
    **{f"{section}.momentum": (f"{section}.optimizer", "sgd") for section in SECTIONS},
    **{
        f"{section}.{name}": (f"{section}.schedule", "linear")
        for section in SECTIONS
        for name in ("warm_up", "schedule_ends")
    },
}


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        section, _, name = path.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    return tree


def as_option(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def what_is_set(config: Config) -> dict[str, Any]:
    return config.model_dump(exclude_defaults=True)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    """Writes a YAML file and gives its path back."""

    def write(text: str) -> str:
        path = tmp_path / "c.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_the_table_above_names_every_field() -> None:
    assert set(VALUES) == {path for path, _ in LEAVES}


@pytest.mark.parametrize("path", VALUES)
def test_every_field_can_be_set_on_the_command_line_and_in_the_file(file: Callable[[str], str], path: str) -> None:
    text, value = VALUES[path]
    companion = dict([COMPANIONS[path]]) if path in COMPANIONS else {}
    expected = nested({path: value, **companion})
    options = [word for name, setting in companion.items() for word in (f"--{name}", as_option(setting))]
    assert what_is_set(parse([file("{}"), f"--{path}", text, *options])[0]) == expected
    assert what_is_set(parse([file("{}"), f"--{path}={text}", *options])[0]) == expected
    assert what_is_set(parse([file(yaml.safe_dump(nested({path: value, **companion})))])[0]) == expected


@pytest.mark.parametrize("path", [path for path in VALUES if path not in COMPANIONS])
def test_the_command_line_wins_over_the_file(file: Callable[[str], str], path: str) -> None:
    text, value = VALUES[path]
    below = file(yaml.safe_dump(nested({path: dict(LEAVES)[path].default, "data.file": "of the file"})))
    expected = nested({"data.file": "of the file", path: value})
    assert what_is_set(parse([below, f"--{path}", text])[0]) == expected


@pytest.mark.parametrize("path", [path for path in VALUES if path != "output"])
def test_yaml_round_trip(path: str) -> None:
    config = Config.model_validate(nested({path: VALUES[path][1], **dict([COMPANIONS.get(path, ("seed", 5))])}))
    assert from_yaml(to_yaml(config), "config.yaml") == config
