"""Which of the examined samples a report shows, and decisions.h5 as a whole; on root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..artifacts.evaluation_cache import Pieces
from ..artifacts.names import CLASSIFIERS, final
from ..artifacts.predictions import SplitPredictions
from ..data.problem import Problem
from ..data.reading import BoxReader
from ..decomposition.boxes import Box

MOST = 16
"""Samples for each reason."""

_BYTES = 64 << 20
"""Bytes of the images that are shown, at most; at least one is shown."""

_OF_EACH_CLASS = 2

Rows = npt.NDArray[np.int64]


def predictions_of(problem: Problem, split: str, features: str, rows: Rows, pieces: Pieces) -> SplitPredictions:
    """Predictions from the pieces of all phases; reads the images that are to be shown.

    Args:
        problem: of the run.
        split: that was examined.
        features: what the DNN sees.
        rows: of the split, that were examined.
        pieces: from :class:`hpcdd.phases.attribution.Attribution`, on root.

    Raises:
        UserError: the file is damaged.
    """
    stored, of_split = problem.rows[split]
    labels = problem.labels(split).numpy()[rows]
    shown, reasons = choose(labels, pieces)
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
        local=pieces["local/decisions"],
        confidence=pieces["local/confidence"],
        strategies=_named(pieces, "strategies/{}"),
        ablation=_named(pieces, "influence/{}/ablation"),
        gradient=_named(pieces, "influence/{}/gradient"),
        shown=shown,
        images=images[places],
        reasons=reasons,
    )


def choose(labels: npt.NDArray[np.int64], pieces: Pieces) -> tuple[Rows, tuple[str, ...]]:
    """Which samples are shown, and why: up to :data:`MOST` for each reason, see
    :data:`hpcdd.artifacts.predictions.REASONS`.

    Of those that were rescued, the ones that the fewest local CNNs had right come first; of those that were lost, the
    ones that most had right. Examples are the first of each class among the rest, at most two of a class.

    Returns:
        Numbers of samples (m,), examples first and taking turns with the others, and m reasons.
    """
    strategies = _named(pieces, "strategies/{}")
    right = (pieces["local/decisions"] == labels[:, None]).mean(1)
    speaks = strategies[final(strategies)].argmax(1) == labels
    rescued = np.flatnonzero(speaks & (right < 0.5))
    rescued = rescued[np.argsort(right[rescued], kind="stable")][:MOST]
    lost = np.flatnonzero(~speaks & (strategies["majority"].argmax(1) == labels))
    lost = lost[np.argsort(-right[lost], kind="stable")][:MOST]
    rest = np.setdiff1d(np.arange(len(labels)), np.concatenate([rescued, lost]))
    turns = np.zeros(len(rest), np.int64)  # which one of its class each is
    for label in np.unique(labels[rest]):
        of_class = labels[rest] == label
        turns[of_class] = np.arange(of_class.sum())
    first = rest[np.argsort(turns, kind="stable")][: int((turns < _OF_EACH_CLASS).sum())][:MOST]
    # In turns, so that where there is room for few of them all reasons are there.
    by_turn = sorted(
        (turn, reason, int(row))
        for reason, chosen in (("example", first), ("rescued", rescued), ("lost", lost))
        for turn, row in enumerate(chosen)
    )
    return np.array([row for _, _, row in by_turn], np.int64), tuple(reason for _, reason, _ in by_turn)


def _named(pieces: Mapping[str, Any], place: str) -> dict[str, npt.NDArray[np.float32]]:
    return {name: pieces[place.format(name)] for name in CLASSIFIERS if place.format(name) in pieces}
