"""Penultimate features: what they are, how many, and who offers them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hpcdd.config.sections import ModelSettings
from hpcdd.core.errors import UserError
from hpcdd.models.dnn import features_of
from hpcdd.models.penultimate import (
    Penultimate,
    check_features,
    classifiers,
    feature_widths,
    logits_and_features,
    with_features,
)

from .test_coherent_model import FEATURES, WIDTHS, local_cnns, subimages


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_last_layer_on_penultimate_features_gives_the_logits(index: int) -> None:
    network = local_cnns()[index].eval()
    part, images = Penultimate(copy.deepcopy(network)), subimages()[index]
    assert part(images).shape == (5, WIDTHS["penultimate"][index])
    assert torch.equal(part.classifier(part(images)), network(images))


class Own(nn.Module):
    """A user's own CNN that offers what it is asked for."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def penultimate(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def test_cnns_that_offer_penultimate_features_pass() -> None:
    for network in (*local_cnns(), Own(nn.Linear(4, 3))):
        check_features(network, "any", "coherent.features")


def test_cnns_that_do_not_offer_them_are_named() -> None:
    without_classifier = Own(nn.Linear(4, 3))
    del without_classifier.classifier
    no_method = Own(nn.Linear(4, 3))
    no_method.penultimate = torch.zeros(3)  # type: ignore[method-assign]
    for network in (nn.Linear(4, 3), without_classifier, Own(nn.Sequential(nn.Linear(4, 3))), no_method):
        with pytest.raises(
            UserError, match=r"coherent\.features is 'penultimate'.*'my\.cnns:tiny'.*penultimate\(images"
        ):
            check_features(network, "my.cnns:tiny", "coherent.features")


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_logits_and_features_come_from_one_pass(features: str, index: int) -> None:
    network, images = local_cnns()[index].eval(), subimages()[index]
    outputs = with_features(network, features)(images)
    logits, seen = logits_and_features(network, outputs, features)
    assert torch.equal(logits, network(images))
    expected = network.penultimate(images) if features == "penultimate" else features_of(logits, features)
    assert torch.equal(seen, expected)
    assert all(p.requires_grad for p in network.parameters())  # it is trained on afterwards


@pytest.mark.parametrize("features", FEATURES)
def test_widths_are_those_of_what_the_dnn_sees(features: str) -> None:
    model, shapes = ModelSettings(name="vgg2", width=4), [(1, 8, 8), (1, 4, 8), (1, 8, 8)]
    widths = feature_widths(model, shapes, 3, 4, features)
    assert widths == ([8, 8, 8] if features == "penultimate" else [3, 3, 3])
    last_layers = classifiers(model, shapes, 3, 4)
    assert [last.in_features for last in last_layers] == [8, 8, 8]
    assert all(last.weight.is_meta for last in last_layers)
