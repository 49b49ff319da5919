"""decisions.h5, HDF5: the predictions of all strategies for the samples of one split, and their attribution.

Attributes of the file::

    hpcdd_decisions_format  int: version of the format, 1
    dataset                 string: name of the data set
    split                   string: name of the split: train, validation or test
    class_names             strings (K,): names of the classes 0 to K - 1
    samples                 int: number of samples of the whole split
    features                string: input of the DNN from each local CNN: logits, probabilities or penultimate

Groups and datasets, for n samples of the split (all, or a random subset) and S subdomains::

    /rows                     int64 (n,): numbers of these samples in the split, ascending
    /labels                   int64 (n,): their classes
    /local/decisions          int32 (n, S): the class that each local CNN predicts
    /local/confidence         float32 (n, S): the probability that the local CNN gives to this class
    /strategies/NAME          float32 (n, K): the probabilities of a strategy, by its name in results.json; the
                              predicted class c is the one with the highest probability
    /influence/NAME/ablation  float32 (n, S): attribution by ablation: the probability of c, minus that with the output
                              z_s of subdomain s replaced by its mean over the n samples
    /influence/NAME/gradient  float32 (n, S): attribution by gradient: d logit_c / d z_s times (z_s - mean z_s)
    /samples/rows             int64 (m,): positions among the n samples of those that a report shows
    /samples/images           dtype of the data set, (m, C, *spatial): these images, as they are stored
    /samples/reason           strings (m,): why each is shown: example, of its class; rescued, because the final
                              strategy is correct where most local CNNs are wrong; lost, because it is wrong where
                              the majority vote is correct

An attribution is positive if the subdomain supports the predicted class. It exists for ``average`` (ablation only,
because the average is linear), ``dnn``, ``coherent_transfer`` and ``coherent_scratch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..core.errors import UserError
from ..core.files import atomic_write
from ..core.hdf5 import damage_reported, first_fault, new_hdf5, open_hdf5, other_format, whole
from ..core.names import CLASSIFIERS, final
from ..core.texts import printable

FORMAT = 1
REASONS = ("example", "rescued", "lost")
"""Why a sample is shown; see the docstring of the module."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SplitPredictions:
    """The content of the file; arrays as described above.

    Attributes:
        dataset: name of the data set.
        split: ``train``, ``validation`` or ``test``.
        class_names: K names.
        samples: number of samples of the whole split.
        features: input of the DNN from each local CNN.
        rows, labels: ``/rows`` and ``/labels``.
        local, confidence: ``/local/decisions`` and ``/local/confidence``.
        strategies: probabilities by name, in the order of :data:`.names.CLASSIFIERS`.
        ablation, gradient: attribution by name of the strategy.
        shown: ``/samples/rows``.
        images: ``/samples/images``.
        reasons: ``/samples/reason``.
    """

    dataset: str
    split: str
    class_names: tuple[str, ...]
    samples: int
    features: str
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    local: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float32]
    strategies: Mapping[str, npt.NDArray[np.float32]]
    ablation: Mapping[str, npt.NDArray[np.float32]]
    gradient: Mapping[str, npt.NDArray[np.float32]]
    shown: npt.NDArray[np.int64]
    images: Array
    reasons: tuple[str, ...]

    @property
    def final(self) -> str:
        """See :func:`hpcdd.core.names.final`."""
        return final(self.strategies)

    @property
    def is_whole(self) -> bool:
        """Whether the file contains all samples of the split."""
        return len(self.rows) == self.samples

    def predicted(self, name: str) -> npt.NDArray[np.int64]:
        """int64 (n,): the classes that a strategy predicts."""
        classes: npt.NDArray[np.int64] = self.strategies[name].argmax(1).astype(np.int64)
        return classes

    def write(self, path: Path) -> None:
        """Writes the file atomically: under a temporary name, then renamed.

        Raises:
            OSError: it can't be written.
        """
        with atomic_write(path) as temporary, new_hdf5(temporary) as file:
            file.attrs["hpcdd_decisions_format"] = FORMAT
            file.attrs["dataset"], file.attrs["split"] = self.dataset, self.split
            file.attrs["class_names"] = list(self.class_names)
            file.attrs["samples"], file.attrs["features"] = self.samples, self.features
            for name, values in self._arrays().items():
                file[name] = values
            file.create_dataset("samples/reason", data=list(self.reasons), dtype=h5py.string_dtype())

    def _arrays(self) -> dict[str, Array]:
        return {
            "rows": self.rows,
            "labels": self.labels,
            "local/decisions": self.local,
            "local/confidence": self.confidence,
            **{f"strategies/{name}": values for name, values in self.strategies.items()},
            **{f"influence/{name}/ablation": values for name, values in self.ablation.items()},
            **{f"influence/{name}/gradient": values for name, values in self.gradient.items()},
            "samples/rows": self.shown,
            "samples/images": self.images,
        }


def read(path: Path) -> SplitPredictions:
    """What :meth:`SplitPredictions.write` wrote.

    Raises:
        UserError: it is not there, not such a file, of another format, or damaged.
    """
    remedy = "copy it again, or make it with `hpcdd evaluate RUN --output FOLDER`"
    with (
        open_hdf5(path, str(path), "decisions.h5 of a run", "name decisions.h5 of a run", remedy) as file,
        damage_reported(lambda reason: f"{path} is damaged ({reason}); {remedy}"),
    ):
        if fault := other_format(file, "hpcdd_decisions_format", FORMAT):
            raise UserError(f"{path} is not a decisions file of format {FORMAT} ({fault}); name decisions.h5 of a run")
        if fault := first_fault(file):
            raise UserError(f"{path}: {fault}; a decisions file must contain all of its data")
        return _checked(file)


def _checked(file: h5py.File) -> SplitPredictions:
    """The content; raises ValueError, or what h5py raises, if it is inconsistent."""
    names = tuple(printable(str(name)) for name in file.attrs["class_names"])
    n, (_, num_subdomains) = len(file["rows"]), file["local/decisions"].shape
    of_classes, of_subdomains = (n, len(names)), (n, num_subdomains)
    strategies = {
        name: _array(file, f"strategies/{name}", "float32", of_classes)
        for name in CLASSIFIERS
        if name in file["strategies"]
    }
    attribution: dict[str, dict[str, Array]] = {
        kind: {
            name: _array(file, f"influence/{name}/{kind}", "float32", of_subdomains)
            for name in strategies
            if f"influence/{name}/{kind}" in file
        }
        for kind in ("ablation", "gradient")
    }
    images = file["samples/images"]
    predictions = SplitPredictions(
        dataset=printable(str(file.attrs["dataset"])),
        split=str(file.attrs["split"]),
        class_names=names,
        samples=int(file.attrs["samples"]),
        features=str(file.attrs["features"]),
        rows=_array(file, "rows", "int64", (n,)),
        labels=_array(file, "labels", "int64", (n,)),
        local=_array(file, "local/decisions", "int32", of_subdomains),
        confidence=_array(file, "local/confidence", "float32", of_subdomains),
        strategies=strategies,
        ablation=attribution["ablation"],
        gradient=attribution["gradient"],
        shown=_array(file, "samples/rows", "int64", (len(images),)),
        images=_array(file, "samples/images", str(images.dtype), images.shape),
        reasons=tuple(file["samples/reason"].asstr()[:]),
    )
    if fault := _fault(predictions):
        raise ValueError(fault)
    return predictions


def _fault(predictions: SplitPredictions) -> str | None:
    """The first inconsistency of the content; None without one."""
    shown, images = predictions.shown, predictions.images
    checks = {
        "it has no samples": len(predictions.rows) == 0,
        "dnn is not among its strategies": "dnn" not in predictions.strategies,
        "rows are not ascending sample numbers": not _within(predictions.rows, predictions.samples)
        or bool((np.diff(predictions.rows) <= 0).any()),
        "labels are not valid classes": not _within(predictions.labels, len(predictions.class_names)),
        "local predictions are not valid classes": not _within(predictions.local, len(predictions.class_names)),
        "a number is NaN or infinite": not all(
            bool(np.isfinite(values).all())
            for values in (
                predictions.confidence,
                *predictions.strategies.values(),
                *predictions.ablation.values(),
                *predictions.gradient.values(),
            )
        ),
        "the samples shown are not among the rows": not _within(shown, len(predictions.rows)),
        "images have an invalid shape or type": images.ndim < 4 or images.dtype.kind not in "iuf",
        "reasons are unknown": len(predictions.reasons) != len(shown) or not set(predictions.reasons) <= set(REASONS),
    }
    return next((fault for fault, there in checks.items() if there), None)


def _within(values: Array, limit: int) -> bool:
    return bool(((values >= 0) & (values < limit)).all())


def _array(file: h5py.File, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
    """A dataset as it was written; ValueError where it has another shape or dtype."""
    stored = file[name]
    if stored.shape != shape or str(stored.dtype) != dtype:
        raise ValueError(f"{name} is {stored.dtype} {stored.shape}, not {dtype} {shape}")
    return whole(stored)
