"""The coherent model: all local CNNs and the DNN as one network (arXiv 2408.14442), in its one-process form.

The form that is spread over ranks is in :mod:`hpcdd.parallel.sharded_coherent`; both have the same parameters and
outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..core.errors import UserError
from .dnn import DNN, features_of
from .fast import Fast
from .random_modules import scale_dropout


class CoherentModel(nn.Module):
    """CNN_0 ... CNN_{S-1} side by side, and the DNN on their outputs.

    Args:
        cnns: S local CNNs.
        dnn: takes their outputs side by side.
        features: the DNN's input from each CNN: ``logits``, ``probabilities`` or ``penultimate``.
    """

    def __init__(self, cnns: Sequence[nn.Module], dnn: DNN, features: str) -> None:
        super().__init__()
        self.cnns = nn.ModuleList(cnns)
        self.dnn = dnn
        self.features = features

    def forward(self, subimages: Sequence[torch.Tensor]) -> torch.Tensor:
        """S tensors, float (n, C, *shape of subdomain s) -> logits (n, K)."""
        return self.combined(self.outputs(subimages))

    def outputs(self, subimages: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The inputs of the DNN from each CNN, (n, F)."""
        return [output_of(cnn, images, self.features) for cnn, images in zip(self.cnns, subimages, strict=True)]

    def combined(self, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """The DNN's logits (n, K) from :meth:`outputs`."""
        with torch.autocast(outputs[0].device.type, enabled=False):
            side_by_side = torch.cat(list(outputs), dim=1).to(self.dnn.first.weight.dtype)
            logits: torch.Tensor = self.dnn(side_by_side)
        return logits


def output_of(cnn: nn.Module, images: torch.Tensor, features: str) -> torch.Tensor:
    """The DNN's input from one local CNN that :func:`prepare_cnn` made: float (n, C, *spatial) -> (n, F)."""
    return features_of(cnn(images), features)


class Penultimate(nn.Module):
    """A local CNN without its last layer, whose parameters are kept as they are.

    Args:
        cnn: a CNN that passes :func:`check_features`.
    """

    def __init__(self, cnn: nn.Module) -> None:
        super().__init__()
        self.cnn = cnn
        self.classifier.requires_grad_(False)

    @property
    def classifier(self) -> nn.Linear:
        """The last layer."""
        return self.cnn.classifier  # type: ignore[return-value]  # see check_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Float (n, C, *spatial) -> input of the last layer, (n, F)."""
        output: torch.Tensor = self.cnn.penultimate(images)  # type: ignore[operator]  # see check_features
        return output


def prepare_cnn(cnn: nn.Module, features: str, dropout_scale: float, frozen: int = 0) -> nn.Module:
    """Makes a local CNN a part of the coherent model: with or without its last layer, its first stages frozen or not.

    Args:
        cnn: the CNN; changed in place.
        features: the DNN's input.
        dropout_scale: factor on the dropout rates.
        frozen: first stages that are not trained, see :meth:`hpcdd.models.fast.Fast.freeze`.
    """
    scale_dropout(cnn, dropout_scale)
    if isinstance(cnn, Fast):
        cnn.freeze(frozen)
    return Penultimate(cnn) if features == "penultimate" else cnn


def check_features(cnn: nn.Module, name: str) -> None:
    """Refuses ``penultimate`` features of a CNN that does not offer them.

    Raises:
        UserError: a user's CNN lacks ``penultimate`` or ``classifier``.
    """
    if not callable(getattr(cnn, "penultimate", None)) or not isinstance(getattr(cnn, "classifier", None), nn.Linear):
        raise UserError(
            f"coherent.features is 'penultimate', but the CNN of {name!r} does not provide them; give it a method "
            "penultimate(images) -> (n, F) and a torch.nn.Linear `classifier` that maps its result to the logits"
        )
