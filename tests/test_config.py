"""Every field documented, and the ranges and contradictions that a section refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from hpcdd.config import Config, DecompositionSettings, LocalSettings, ModelSettings
from hpcdd.configuration import parse


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    yield "", Config
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"{name}.", field.annotation


FIELDS = [(prefix + name, field) for prefix, section in sections() for name, field in section.model_fields.items()]
LEAVES = [(path, field) for path, field in FIELDS if not isinstance(field.default, BaseModel)]


def test_there_are_five_sections_and_more_fields_than_that() -> None:
    assert [prefix for prefix, _ in sections()] == ["", "data.", "decomposition.", "model.", "local.", "aggregation."]
    assert len(LEAVES) > 30


@pytest.mark.parametrize(("path", "field"), FIELDS, ids=[path for path, _ in FIELDS])
def test_every_field_is_documented(path: str, field: Any) -> None:
    assert field.description
    assert len(field.description) > 5


@pytest.fixture(scope="module")
def help_text() -> str:
    """The help without white space, since argparse breaks lines where it likes."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as end:
        parse(["--help"])
    assert end.value.code == 0
    return re.sub(r"\s", "", out.getvalue())


@pytest.mark.parametrize(("path", "field"), LEAVES, ids=[path for path, _ in LEAVES])
def test_help_shows_every_field_with_its_documentation_and_default(help_text: str, path: str, field: Any) -> None:
    documentation = re.sub(r"\s", "", field.description)
    after = re.search(rf"--{re.escape(path)}(?![\w.]).*?{re.escape(documentation)}\(default:(.*)", help_text)
    assert after, f"{path} or its documentation is missing"
    defaults = {str(field.default), "null"} if field.default is None else {str(field.default)}
    assert any(after[1].startswith(re.sub(r"\s", "", default) + ")") for default in defaults), after[1][:40]


def test_sections_are_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.local.epochs = 3  # type: ignore[misc]


def test_defaults_are_valid_and_of_the_paper() -> None:
    config = Config.model_validate({})
    assert config.decomposition.grid is None
    assert (config.model.name, config.model.width, config.model.local_width) == ("vgg3", 32, "match")
    assert config.local.epochs != config.aggregation.epochs


@pytest.mark.parametrize("name", ["vgg1", "vgg8", "resnet8", "resnet20", "resnet56", "mine:cnn", "a.b_c.d2:Net", "_m:f"])
def test_model_names_that_are_taken(name: str) -> None:
    model = ModelSettings(name=name)
    assert model.is_own == (":" in name)
    assert model.vgg_dropout == (0.2, 0.5)


@pytest.mark.parametrize(
    ("name", "explanation"),
    [
        ("vgg0", "N = 1 to 8"),
        ("vgg9", "N = 1 to 8"),
        ("vgg16", "N = 1 to 8"),
        ("resnet2", "6n\\+2"),
        ("resnet18", "6n\\+2"),
        ("resnet21", "6n\\+2"),
        ("alexnet", "package.module:factory"),
        ("vgg", "package.module:factory"),
        ("vgg3 ", "package.module:factory"),
        ("", "package.module:factory"),
        ("a:", "package.module:factory"),
        (":f", "package.module:factory"),
        ("a:f()", "package.module:factory"),
        ("a:b:c", "package.module:factory"),
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
        (ModelSettings, {"width": 1.5}),
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
        (Config, {"nonsense": 1}),
        (Config, {"local": {"features": "logits"}}),
    ],
)
def test_values_out_of_range_and_contradictions_are_refused(section: type[BaseModel], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        section(**fields)
    assert error.value.error_count() >= 1
    section()  # it is the fields that are wrong


def test_the_limits_of_ranges_are_taken() -> None:
    assert LocalSettings(batch_size=2, epochs=1, weight_decay=0, early_stopping=1).batch_size == 2
    assert LocalSettings(optimizer="sgd", momentum=0.0).momentum == 0
    assert LocalSettings(optimizer="adam", momentum=0.9).momentum == 0.9  # the default contradicts nothing
    assert DecompositionSettings(boxes=[[[0, 0], [4, 4]]], overlap=0).boxes == (((0, 0), (4, 4)),)
    assert Config(seed=2**64, name="a.b-c+1").seed == 2**64
