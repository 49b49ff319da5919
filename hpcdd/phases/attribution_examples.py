"""Which samples of the attribution a report shows, and decisions.h5 as a whole; on root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artifacts.evaluation_cache import Arrays
from ..artifacts.predictions import SplitPredictions
from ..core.names import CLASSIFIERS, final
from ..data.problem import Problem
from ..data.reading import BoxReader
from ..decomposition.boxes import Box

MOST = 16
"""Samples for each reason."""

_BYTES = 64 << 20
"""Bytes of the images that are shown, at most; at least one is shown."""

_OF_EACH_CLASS = 2

Rows = npt.NDArray[np.int64]


def predictions_of(problem: Problem, split: str, features: str, rows: Rows, arrays: Arrays) -> SplitPredictions:
    """Predictions from the arrays of all phases; reads the images that are to be shown.

    Args:
        problem: of the run.
        split: that was attributed.
        features: what the DNN sees.
        rows: of the split, from :func:`hpcdd.phases.attribution.attribution_rows`.
        arrays: from :class:`hpcdd.phases.attribution.Attribution`, on root.

    Raises:
        UserError: the file is damaged.
    """
    stored, of_split = problem.rows[split]
    labels = problem.labels(split).numpy()[rows]
    shown, reasons = choose(labels, arrays)
    shape = problem.info.image_shape
    room = max(1, _BYTES // (int(np.prod(shape)) * np.dtype(problem.info.dtype).itemsize))
    shown, reasons = shown[:room], reasons[:room]
    wanted = rows[shown] if of_split is None else of_split[rows[shown]]
    ascending, places = np.unique(wanted, return_inverse=True)
    whole = Box((0,) * len(shape[1:]), shape[1:])
    (images,) = BoxReader(problem.info.path).read_rows(stored, whole, [ascending])
    return SplitPredictions(
        dataset=problem.info.name,
        split=split,
        class_names=problem.info.class_names,
        samples=problem.samples[split],
        features=features,
        rows=rows,
        labels=labels,
        local=arrays["local/decisions"],
        confidence=arrays["local/confidence"],
        strategies=_named(arrays, "strategies/{}"),
        ablation=_named(arrays, "influence/{}/ablation"),
        gradient=_named(arrays, "influence/{}/gradient"),
        shown=shown,
        images=images[places],
        reasons=reasons,
    )


def choose(labels: npt.NDArray[np.int64], arrays: Arrays) -> tuple[Rows, tuple[str, ...]]:
    """Which samples are shown, and why: up to :data:`MOST` for each reason, see
    :data:`hpcdd.artifacts.predictions.REASONS`.

    Of those that were rescued, the ones that the fewest local CNNs classified correctly come first; of those that were
    lost, the ones that the most did. Examples are the first of each class among the rest, at most two of a class.

    Returns:
        Numbers of samples (m,), of the three reasons interleaved, examples first; and m reasons.
    """
    strategies = _named(arrays, "strategies/{}")
    correct = (arrays["local/decisions"] == labels[:, None]).mean(1)
    final_correct = strategies[final(strategies)].argmax(1) == labels
    rescued = np.flatnonzero(final_correct & (correct < 0.5))
    rescued = rescued[np.argsort(correct[rescued], kind="stable")][:MOST]
    lost = np.flatnonzero(~final_correct & (strategies["majority"].argmax(1) == labels))
    lost = lost[np.argsort(-correct[lost], kind="stable")][:MOST]
    rest = np.setdiff1d(np.arange(len(labels)), np.concatenate([rescued, lost]))
    turns = np.zeros(len(rest), np.int64)  # which one of its class each is
    for label in np.unique(labels[rest]):
        of_class = labels[rest] == label
        turns[of_class] = np.arange(of_class.sum())
    first = rest[np.argsort(turns, kind="stable")][: int((turns < _OF_EACH_CLASS).sum())][:MOST]
    # Interleaved, so that where there is room for few of them all reasons are there.
    interleaved = sorted(
        (turn, reason, int(row))
        for reason, chosen in (("example", first), ("rescued", rescued), ("lost", lost))
        for turn, row in enumerate(chosen)
    )
    return np.array([row for _, _, row in interleaved], np.int64), tuple(reason for _, reason, _ in interleaved)


def _named(arrays: Mapping[str, Any], pattern: str) -> dict[str, npt.NDArray[np.float32]]:
    return {name: arrays[pattern.format(name)] for name in CLASSIFIERS if pattern.format(name) in arrays}
