"""The coherent model: all local CNNs and the DNN as one network (arXiv 2408.14442), in its one-process form.

The form that is spread over ranks is in :mod:`hpcdd.parallel.sharded_coherent`; both have the same parameters and
outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .dnn import DNN, features_of
from .fast import Fast
from .penultimate import Penultimate
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
    if features != "penultimate":
        return cnn
    part = Penultimate(cnn)
    part.classifier.requires_grad_(False)  # the DNN replaces it; its parameters are kept as they are
    return part
