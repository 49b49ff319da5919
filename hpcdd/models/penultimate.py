"""Penultimate features: the input of a local CNN's last layer, which the DNN may see instead of its logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..config.sections import ModelSettings
from ..core.errors import UserError
from .dnn import features_of
from .registry import template


class Penultimate(nn.Module):
    """A local CNN that gives the input of its last layer.

    Args:
        cnn: a CNN that passes :func:`check_features`.
    """

    def __init__(self, cnn: nn.Module) -> None:
        super().__init__()
        self.cnn = cnn

    @property
    def classifier(self) -> nn.Linear:
        """The last layer."""
        return self.cnn.classifier  # type: ignore[return-value]  # see check_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, *spatial) -> input of the last layer, (n, F)."""
        output: torch.Tensor = self.cnn.penultimate(images)  # type: ignore[operator]  # see check_features
        return output


class FeaturesAndLogits(Penultimate):
    """A local CNN that also gives the input of its last layer."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, *spatial) -> (n, F + K): the input of the last layer, then the logits."""
        features = super().forward(images)
        return torch.cat([features, self.classifier(features)], dim=1)


def with_features(cnn: nn.Module, features: str) -> nn.Module:
    """A local CNN for :func:`logits_and_features`.

    Args:
        cnn: the CNN.
        features: what the DNN sees of it: ``logits``, ``probabilities`` or ``penultimate``.
    """
    return FeaturesAndLogits(cnn) if features == "penultimate" else cnn


def logits_and_features(cnn: nn.Module, outputs: torch.Tensor, features: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A local CNN's logits (n, K), and what the DNN sees of it (n, F).

    Args:
        cnn: the CNN.
        outputs: what :func:`with_features` gave, or the mean of several.
        features: as there.
    """
    if features != "penultimate":
        return outputs, features_of(outputs, features)
    width: int = cnn.classifier.in_features  # type: ignore[assignment, union-attr]  # see check_features
    return outputs[:, width:], outputs[:, :width]


def classifiers(
    model: ModelSettings, subimage_shapes: Sequence[tuple[int, ...]], num_classes: int, width: int
) -> list[nn.Linear]:
    """The last layers of S local CNNs, without their parameters; CNNs of one shape share one.

    Args:
        model: whose CNNs pass :func:`check_features`.
        subimage_shapes: S times (C, *spatial).
        num_classes: K.
        width: channels of their first block.
    """
    shapes = dict.fromkeys(subimage_shapes)
    of_shape = {shape: Penultimate(template(model, shape, num_classes, width)).classifier for shape in shapes}
    return [of_shape[shape] for shape in subimage_shapes]


def feature_widths(
    model: ModelSettings, subimage_shapes: Sequence[tuple[int, ...]], num_classes: int, width: int, features: str
) -> list[int]:
    """Features that the DNN sees of every local CNN, S numbers; arguments as for :func:`classifiers`.

    Args:
        features: ``logits``, ``probabilities`` or ``penultimate``.
    """
    if features != "penultimate":
        return [num_classes] * len(subimage_shapes)
    return [last.in_features for last in classifiers(model, subimage_shapes, num_classes, width)]


def check_features(cnn: nn.Module, name: str, setting: str) -> None:
    """Refuses ``penultimate`` features of a CNN that does not offer them.

    Args:
        cnn: the CNN.
        name: of its family or factory.
        setting: which asks for them.

    Raises:
        UserError: a user's CNN lacks ``penultimate`` or ``classifier``.
    """
    if not callable(getattr(cnn, "penultimate", None)) or not isinstance(getattr(cnn, "classifier", None), nn.Linear):
        raise UserError(
            f"{setting} is 'penultimate', but the CNN of {name!r} does not provide them; give it a method "
            "penultimate(images) -> (n, F) and a torch.nn.Linear `classifier` that maps its result to the logits"
        )
