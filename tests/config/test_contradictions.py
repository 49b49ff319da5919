"""What sections say against each other: refused, at its line, and only where it follows from no other mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError

from ..parsed import parse


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def mistakes(text: str, *argv: str) -> list[str]:
    """What is found wrong with c.yaml and a command line."""
    Path("c.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        parse(["c.yaml", *argv])
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("aggregation", "coherent", "fits"),
    [
        ("logits", None, True),
        ("logits", "logits", True),
        ("logits", "penultimate", True),  # the CNNs' last layers become a part of the DNN's first one
        ("logits", "probabilities", False),
        ("probabilities", None, True),
        ("probabilities", "probabilities", True),
        ("probabilities", "logits", False),
        ("probabilities", "penultimate", False),
        ("penultimate", None, True),
        ("penultimate", "penultimate", True),
        ("penultimate", "logits", False),
    ],
)
def test_a_trained_dnn_goes_on_with_what_it_has_seen(aggregation: str, coherent: str | None, fits: bool) -> None:
    def made(dnn_start: str) -> Config:
        sections = {"aggregation": {"features": aggregation}, "coherent": {"features": coherent}}
        sections["coherent"]["dnn_start"] = dnn_start
        return Config.model_validate(sections)

    assert made("fresh").coherent_features == (coherent or aggregation)  # a fresh one sees what is wanted
    if fits:
        assert made("trained").coherent_features == (coherent or aggregation)
    else:
        with pytest.raises(ValidationError, match=rf"sees {aggregation} \(aggregation\.features\)") as error:
            made("trained")
        assert repr(coherent) in str(error.value)


def test_a_contradiction_between_sections_stands_at_its_line() -> None:
    text = "aggregation: {features: probabilities}\ncoherent:\n  {epochs: 3,\n  features: logits, dnn_start: trained}"
    (contradiction,) = mistakes(text)
    assert contradiction.startswith("c.yaml:4: coherent.")
    assert "(aggregation.features)" in contradiction
    assert "'logits'" in contradiction
    text = "model:\n  name: resnet20\ncoherent:\n  epochs: 3\n  dropout_scale: 0.5\n"
    assert mistakes(text) == ["c.yaml:5: coherent.dropout_scale has no effect on 'resnet20', which has no dropout"]
    (contradiction,) = mistakes("model: {name: resnet20}", "--coherent.dropout_scale", "0.5")
    assert contradiction.startswith("command line: coherent.dropout_scale has no effect on 'resnet20'")
    (contradiction,) = mistakes("coherent: {dropout_scale: 0.5}", "--model.name", "resnet20")
    assert contradiction.startswith("c.yaml:1: coherent.dropout_scale has no effect on 'resnet20'")


def test_a_mistake_makes_no_contradiction_between_sections() -> None:
    (mistake,) = mistakes("aggregation: {features: probs}\ncoherent: {features: probabilities}")
    assert mistake.startswith("c.yaml:1: aggregation.features is 'probs': input should be 'logits', 'probabilities' or")
    (mistake,) = mistakes("aggregation: {features: probabilities}\ncoherent: {features: logitz}")
    assert mistake.startswith("c.yaml:2: coherent.features is 'logitz': input should be 'logits', 'probabilities' or")
    (mistake,) = mistakes("model: {name: resnet20}\ncoherent: {dropout_scale: 5}")
    assert mistake == "c.yaml:2: coherent.dropout_scale is 5: input should be less than or equal to 1"
    # One that has nothing to do with the mistake is reported beside it.
    mistake, contradiction = mistakes("seed: -1\ncoherent: {features: probabilities, dnn_start: trained}")
    assert mistake.startswith("c.yaml:1: seed is -1")
    assert contradiction.startswith("c.yaml:2: coherent.")
    assert "sees logits (aggregation.features)" in contradiction


def test_what_the_dnn_sees_matters_only_where_it_goes_on() -> None:
    for starts in ("[scratch]", "[]"):
        Path("c.yaml").write_text(f"coherent: {{starts: {starts}, features: probabilities}}")
        assert parse(["c.yaml"])[0].coherent_features == "probabilities"
    (mistake,) = mistakes("coherent: {starts: [scrach], features: probabilities}")
    assert mistake.startswith("c.yaml:1: coherent.starts[0] is 'scrach'")
    (mistake,) = mistakes("coherent: {dnn_start: frseh, features: probabilities}")
    assert mistake.startswith("c.yaml:1: coherent.dnn_start is 'frseh': input should be 'trained', 'fresh' or 'pool'")
    (mistake,) = mistakes("coherent:\n  epochs: 2\n  features: probabilities")
    assert mistake.startswith("c.yaml:3: coherent.features is 'probabilities', but")
    (mistake,) = mistakes("aggregation: {features: probabilities}", "--coherent.features", "logits")
    assert mistake.startswith("command line: coherent.features is 'logits', but")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("augmentation: {alternate: true}", "augmentation.alternate is true, but has no effect without flip"),
        ("augmentation: {test_flip: true}", "augmentation.test_flip is true, but has no effect without flip"),
        ("local: {warm_up: 0.1}", "local.warm_up is 0.1, but it has no effect on schedule 'one_cycle'"),
        ("local: {schedule_ends: [1, 0]}", "local.schedule_ends is [1.0, 0.0], but it has no effect on schedule"),
        ("aggregation: {optimizer: muon}", "aggregation.optimizer is 'muon', but the DNN has no filters"),
        ("model: {channels: [1, 2]}", "model.channels has no effect on 'vgg3'"),
        ("model: {name: fast3, channels: [1, 2]}", "model.channels is [1, 2], but 'fast3' has 3 groups"),
        ("model: {name: fast9}", "model.name is 'fast9'; fastN has N = 1 to 8 groups"),
        ("coherent: {frozen: 1}", "coherent.frozen has no effect on 'vgg3'"),
        ("model: {name: fast2}\ncoherent: {frozen: 4}", "coherent.frozen is 4, but 'fast2' has 3 stages"),
        (
            "model: {name: fast2}\ncoherent: {frozen: 1, starts: [scratch]}",
            "coherent.frozen has no effect on a start from scratch",
        ),
        ("coherent: {rate_scale: 0.2, learning_rate: 0.1}", "rate_scale has no effect if learning_rate is set"),
        ("coherent: {dnn_start: pool, features: probabilities}", "coherent.features is 'probabilities', but"),
        (
            "model: {name: fast2}\ncoherent: {features: penultimate, dense_learning_rate: 0.1, dnn_learning_rate: 0.2}",
            "coherent.dense_learning_rate has no effect on 'fast2'",
        ),
    ],
)
def test_a_setting_without_effect_is_refused(text: str, told: str) -> None:
    (mistake,) = mistakes(text)
    assert told in mistake
