"""A trained model as one network: from images as they are stored to the probabilities of the classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..artifacts.model_file import ModelFile
from ..config.schema import TrainingSettings
from ..core.errors import UserError
from ..core.names import coherent_phase, final
from ..data.augmentation import Augmentation
from ..data.coarse import average_of_tensor
from ..data.samples import bits_of, normalised
from ..decomposition.boxes import Subdomain
from ..models.aggregators import RULES, distribution, scores
from ..models.coherent_model import CoherentModel
from ..models.penultimate import logits_and_features, with_features

Images = TypeVar("Images", torch.Tensor, npt.NDArray[Any])
_BATCH_PIXELS = 1 << 21
"""Pixels of a batch, over all channels: a CNN needs hundreds of bytes for each."""


class SubimageStack(nn.Module):
    """Subimages of images as they are stored: boxes cut out, averaged in blocks for a coarse subdomain, normalised.

    Args:
        subdomains: what each CNN sees.
        mean, std: (C,), in units of the stored values.
    """

    def __init__(self, subdomains: Sequence[Subdomain], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.subdomains = tuple(subdomains)
        shape = (1, len(mean), *[1] * len(subdomains[0].shape))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(shape))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(shape))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(n, C, *spatial) -> float32 (n, C, *shape of subdomain s) for each s."""
        cut = [average_of_tensor(images[s.box.index], s.block) for s in self.subdomains]
        return [normalised(pixels, self.mean, self.std) for pixels in cut]


def _flipped(images: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """The images flipped along spatial axes."""
    bits = bits_of(images)
    flipped = bits.flip([2 + axis for axis in axes])
    return flipped if bits is images else flipped.view(images.dtype)


def _distributions(outputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Probabilities of S local CNNs, float64 (n, S, K), from their logits and features."""
    return torch.stack([logits for logits, _ in outputs], dim=1).double().softmax(-1)


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).mean(0)


class Classifier(nn.Module):
    """A trained model as a torch module in evaluation mode: K classes, S subdomains. :func:`hpcdd.load` returns it.

    Attributes:
        classes: names of the K classes.
        strategies: names of all strategies of the model, as in results.json.
        strategy: name of the strategy that makes the predictions.
        image_shape: (C, *spatial) of an image.
        dtype: dtype of the images' pixels, such as ``uint8``; None if the model's file does not record it.
        preparation: how an image file becomes such an image; None if the data set was not made from one file per image.
        features: input of the DNN from each local CNN, ``logits``, ``probabilities`` or ``penultimate``.
        local: the S local CNNs.
        network: the network of the strategy: the DNN, the coherent model or the global CNN; None for ``average``,
            ``majority`` and ``log_pool``.

    Args:
        file: model.h5, open; it may be closed afterwards.
        strategy: name of the strategy that makes the predictions; default: the coherent model (by transfer, else from
            scratch), or the DNN without such a model.

    Raises:
        UserError: the model was not trained for this strategy.
    """

    def __init__(self, file: ModelFile, strategy: str | None = None) -> None:
        super().__init__()
        self.classes, self.strategies = file.class_names, file.strategies
        self.strategy = final(self.strategies) if strategy is None else strategy
        if self.strategy not in self.strategies:
            raise UserError(
                f"this model was not trained for strategy {self.strategy!r}; it has {', '.join(self.strategies)}"
            )
        self.image_shape, self.dtype, self.preparation = file.image_shape, file.dtype, file.preparation
        config = file.config
        self.features = config.aggregation.features
        trained: dict[str, TrainingSettings] = {
            "global": config.baseline,
            **{coherent_phase(s): config.coherent for s in config.coherent.starts},
        }
        self._batch = trained.get(self.strategy, config.local).evaluation_batch
        with file.reading():
            self.subimages = SubimageStack(file.subdomains, file.mean, file.std)
            augmentation = Augmentation.from_settings(config.augmentation, self.image_shape[1:])
        self.local = nn.ModuleList(map(file.local_cnn, range(len(file.subdomains))))
        self.network = file.network(self.strategy)
        self._flips = augmentation.flips if augmentation is not None and augmentation.test_flip else ((),)
        self.eval()

    @property
    def combines(self) -> bool:
        """Whether the strategy combines the outputs of the local CNNs: ``dnn`` and the rules."""
        return self.strategy in RULES or self.strategy == "dnn"

    @property
    def rows(self) -> int:
        """Images per batch of :meth:`predict_proba`: as in an evaluation of the training, fewer for large images."""
        return max(1, min(self._batch, _BATCH_PIXELS // math.prod(self.image_shape)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities of the classes for one batch of images, with gradients unless they are disabled.

        Args:
            images: (n, C, *spatial), with pixels as the dataset file stores them, on the device of the module.

        Returns:
            float64 (n, K). In float32, two very confident CNNs that predict different classes would tie.

        Raises:
            UserError: the images have another shape or dtype.
        """
        self._check(images)
        if self.combines:
            return self._combined(self._local_outputs(images))
        if isinstance(self.network, CoherentModel):
            outputs = zip(
                *[self.network.outputs(self.subimages(flipped)) for flipped in self._with_flips(images)], strict=True
            )
            logits = self.network.combined([_mean(of_flips) for of_flips in outputs])
        else:
            assert self.network is not None
            network, mean, std = self.network, self.subimages.mean, self.subimages.std
            logits = _mean([network(normalised(flipped, mean, std)) for flipped in self._with_flips(images)])
        return logits.double().softmax(-1)

    def predict_proba(self, images: Images) -> Images:
        """Probabilities of the classes for any number of images, in batches and without gradients.

        Args:
            images: array, or tensor on any device, (n, C, *spatial), with pixels as the dataset file stores them.

        Returns:
            float64 (n, K): an array for an array, a tensor on the same device for a tensor.

        Raises:
            UserError: the images have another shape or dtype.
        """
        return self._in_batches(lambda batch: (self(batch),), images)[0]

    def local_probabilities(self, images: Images) -> Images:
        """Probabilities of each local CNN on its own, float64 (n, S, K); otherwise as :meth:`predict_proba`."""
        return self._in_batches(lambda batch: (_distributions(self._local_outputs(batch)),), images)[0]

    def decide(self, images: Images) -> tuple[Images, Images]:
        """The results of :meth:`predict_proba` and :meth:`local_probabilities`; the local CNNs are evaluated once."""

        def both(batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
            outputs = self._local_outputs(batch)
            return self._combined(outputs) if self.combines else self(batch), _distributions(outputs)

        probabilities, local = self._in_batches(both, images)
        return probabilities, local

    def _local_outputs(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each local CNN its logits and what the DNN sees of it, float32 (n, K) and (n, F)."""
        self._check(images)
        outputs = []
        for flipped in self._with_flips(images):
            pairs = zip(self.local, self.subimages(flipped), strict=True)
            outputs.append([with_features(cnn, self.features)(subimages) for cnn, subimages in pairs])
        means = [_mean(of_cnn) for of_cnn in zip(*outputs, strict=True)]
        return [logits_and_features(cnn, mean, self.features) for cnn, mean in zip(self.local, means, strict=True)]

    def _with_flips(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The images, and with ``test_flip`` their flips."""
        return [_flipped(images, axes) if axes else images for axes in self._flips]

    def _combined(self, outputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        if self.strategy in RULES:
            logits = torch.stack([logits for logits, _ in outputs], dim=1)
            return distribution(self.strategy, scores(RULES[self.strategy], logits))
        assert self.network is not None
        output: torch.Tensor = self.network(torch.cat([features for _, features in outputs], dim=1))
        return output.double().softmax(-1)

    def _check(self, images: torch.Tensor) -> None:
        if images.ndim != 1 + len(self.image_shape) or tuple(images.shape[1:]) != self.image_shape:
            raise UserError(
                f"images have the shape {tuple(images.shape)}, but must have the shape (n, "
                f"{', '.join(map(str, self.image_shape))}), channels first"
            )
        dtype = str(images.dtype).removeprefix("torch.")
        if self.dtype is not None and dtype != self.dtype:
            raise UserError(f"images are {dtype}; convert them to {self.dtype}, with values as in the data set")

    def _in_batches(
        self, compute: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], images: Images
    ) -> tuple[Images, ...]:
        if isinstance(images, np.ndarray):
            tensors = self._in_batches(compute, torch.from_numpy(np.ascontiguousarray(images)))
            return tuple(tensor.numpy() for tensor in tensors)
        device = self.subimages.mean.device
        with torch.inference_mode():
            batches = [compute(batch.to(device)) for batch in torch.split(images, self.rows)]
            return tuple(torch.cat(parts).to(images.device) for parts in zip(*batches, strict=True))
