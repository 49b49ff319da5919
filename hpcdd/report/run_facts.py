"""What the page of a run says in numbers and words; pure, but for what the run's files say."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..artifacts import metrics
from ..artifacts.metrics import SUMMARY
from ..artifacts.names import CLASSIFIERS, STRATEGIES, TRAININGS
from ..artifacts.predictions import SplitPredictions
from ..decomposition.boxes import by
from ..studies.hypotheses import LEVEL, holm
from .run_data import RunData

_MOST_PAIRS = 10


@dataclass(frozen=True)
class Share:
    """Accuracy of a strategy with its uncertainty: Wilson's 95% interval of a binomial proportion.

    Attributes:
        name: of the strategy.
        accuracy, low, high: in [0, 1].
    """

    name: str
    accuracy: float
    low: float
    high: float

    @property
    def short(self) -> str:
        """In a few words."""
        return STRATEGIES[self.name].heading


def shares(found: SplitPredictions) -> list[Share]:
    """Of every strategy, in their order."""
    from scipy.stats import binomtest

    made = []
    for name in found.strategies:
        hits = binomtest(int((found.decided(name) == found.labels).sum()), len(found.labels))
        interval = hits.proportion_ci(0.95, method="wilson")
        made.append(Share(name, hits.statistic, interval.low, interval.high))
    return made


def head(run: RunData) -> list[str]:
    """What was trained on what, and how it ended, in sentences."""
    results, config, found = run.results, run.config, run.decisions
    data, boxes = results.dataset, len(run.decomposition.boxes)
    grid = "given" if run.decomposition.parts is None else by(run.decomposition.parts)
    share = next(share for share in shares(found) if share.name == found.final)
    total, devices = results.seconds_of("total") or 0.0, sorted({kind.partition(":")[0] for kind in results.devices})
    coarse = " and a coarse one" if run.decomposition.coarse is not None else ""
    overlap = f", overlapping by {by(run.decomposition.overlap)} pixels" if any(run.decomposition.overlap) else ""
    return [
        f"{config.model.name} of width {results.width.local} on each of {boxes} subimages ({grid}{overlap}){coarse} "
        f"of {data.name}: {data.train:,} training and {data.test:,} test images of {by(data.image_shape)}, "
        f"{data.classes} classes.",
        f"The {_named(found.final)}: {share.accuracy:.4f} of the {found.split} images are classified "
        f"correctly (95% interval {share.low:.4f} to {share.high:.4f}).",
        f"{results.ranks} rank{'s' if results.ranks > 1 else ''} on {results.hosts} host"
        f"{'s' if results.hosts > 1 else ''} ({', '.join(devices)}, {results.threads_per_rank} thread"
        f"{'s' if results.threads_per_rank > 1 else ''} each), {total:,.0f} seconds, seed {results.seed}.",
    ]


def cards(run: RunData) -> list[tuple[str, str]]:
    """The headline numbers: value and words."""
    results, found = run.results, run.decisions
    share = next(share for share in shares(found) if share.name == found.final)
    test = results.accuracy["test"]
    told = [
        (
            f"{share.accuracy:.3f}",
            f"{STRATEGIES[found.final].title}: accuracy (95% {share.low:.3f} to {share.high:.3f})",
        )
    ]
    if found.final != "dnn" and test.dnn is not None:
        told.append((f"{test.dnn:.3f}", "DNN on the local CNNs"))
    if test.local:
        told.append((f"{max(test.local):.3f}", "best local CNN"))
    total = sum(seconds for phase, seconds in results.core_seconds.items() if phase in TRAININGS)
    told.append(
        (f"{total:,.0f} s", f"CPU seconds of training, on {results.ranks} rank{'s' if results.ranks > 1 else ''}")
    )
    sent = [of_phase["bytes_per_step"] for of_phase in results.communication.values() if "bytes_per_step" in of_phase]
    if sent:
        told.append(
            (f"{max(sent):,.0f} B", "sent and received per rank in a coherent step; the local phase sends nothing")
        )
    return told


def spent(run: RunData) -> list[tuple[str, str, float, float]]:
    """Of the best local CNN and each strategy: name, words, CPU seconds of all ranks until trained, accuracy."""
    results, test = run.results, run.results.accuracy["test"]
    # Other rules cost as much as the average.
    shown = {*chain(run), "average", "dnn", "coherent_scratch", "global"}
    made = [("local", "best local CNN", results.core_seconds_of("local"), max(test.local))] if test.local else []
    made += [
        (name, STRATEGIES[name].heading, results.core_seconds_of(name), rate)
        for name in CLASSIFIERS
        if name in shown and (rate := test.of(name)) is not None
    ]
    return made


def gained(run: RunData) -> str:
    """In words, what each step of the method has added to the test accuracy, and the alternatives."""
    test = run.results.accuracy["test"]
    rates = {name: rate for name in CLASSIFIERS if (rate := test.of(name)) is not None}
    steps = [name for name in chain(run) if name in rates]
    if not test.local or not steps:
        return ""
    before, last, told = max(test.local), "best local CNN", []
    for name in steps:
        told.append(f"The {_named(name)} is {_points(rates[name] - before)} the {last}.")
        before, last = rates[name], _named(name)
    told += [
        f"The {_named(name)} is {_points(rates[name] - before)} the {last}."
        for name in ("dnn", "coherent_scratch", "global")
        if name in rates and name not in steps
    ]
    if "global" not in rates:
        told.append("The global CNN was not trained for comparison (--baseline.enabled true trains it).")
    return " ".join(told)


def _named(strategy: str) -> str:
    """In a sentence."""
    return STRATEGIES[strategy].title.replace(", ", " ")


def _points(difference: float) -> str:
    """A difference of accuracies, in words that a strategy's name follows."""
    points = f"{100 * abs(difference):.1f}"
    return "level with" if points == "0.0" else f"{points} percentage points {'above' if difference > 0 else 'below'}"


def chain(run: RunData) -> tuple[str, ...]:
    """The strategies on the way to the coherent model, whose DNN starts as trained, as the pool, or afresh."""
    ways = {"trained": ("average", "dnn"), "pool": ("log_pool",), "fresh": ("average",)}
    return *ways[run.config.coherent.dnn_start], "coherent_transfer"


def notes(run: RunData) -> list[str]:
    """What a reader should know before believing the figures."""
    found, results = run.decisions, run.results
    told = []
    if not found.is_whole:
        told.append(
            f"Of {found.samples:,} {found.split} images, {len(found.rows):,} were examined, drawn with the seed. "
            "Figures for single strategies, classes and subimages refer to these."
        )
    if not run.config.coherent.starts:
        told.append("The coherent model was not trained (coherent.starts is []).")
    if all(line.validation_loss is None for line in run.lines):
        told.append(
            "There is no validation split, so curves show only the training split (see data.validation_fraction)."
        )
    if results.replicas > 1:
        told.append(f"Each local CNN was trained by {results.replicas} ranks on shared batches.")
    return told


def table_of_strategies(found: SplitPredictions) -> list[list[str]]:
    """Of every strategy: words, accuracy with its interval, and the other numbers of :data:`SUMMARY`."""
    rows = []
    for share in shares(found):
        numbers = metrics.summary(found.strategies[share.name], found.labels)
        others = [f"{numbers[key]:.4f}" for key in SUMMARY if key != "accuracy"]
        interval = f"{share.accuracy:.4f} ({share.low:.4f} to {share.high:.4f})"
        rows.append([STRATEGIES[share.name].title, interval, *others])
    return rows


def pairs(found: SplitPredictions) -> list[list[str]]:
    """Neighbouring strategies by accuracy, and McNemar's exact test of whether the better one is better.

    The test is two-sided, of the images on which one of both is right (Q. McNemar, Psychometrika 12, 1947); the p
    values of all neighbours are corrected together by Holm's method.
    """
    from scipy.stats import binomtest

    right = {share: found.decided(share.name) == found.labels for share in shares(found)}
    order = sorted(right, key=lambda share: -share.accuracy)
    neighbours = list(itertools.pairwise(order))
    counts = [
        (int((right[better] & ~right[worse]).sum()), int((~right[better] & right[worse]).sum()))
        for better, worse in neighbours
    ]
    corrected = holm(
        [float(binomtest(gains, gains + losses).pvalue) if gains + losses else 1.0 for gains, losses in counts]
    )
    rows = []
    for (better, worse), (gains, losses), p in zip(neighbours, counts, corrected, strict=True):
        verdict = "equal" if gains == losses else "better" if p <= LEVEL else "not significant"
        rows.append([better.short, worse.short, f"{gains:,}", f"{losses:,}", _p(p), verdict])
    return rows


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def most_confused(matrix: Any, names: Sequence[str]) -> list[list[str]]:
    """The pairs of classes that are most often taken for each other: true, decided, how often, of how many."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:_MOST_PAIRS]
    places = [np.unravel_index(place, off.shape) for place in order]
    return [
        [names[i], names[j], f"{off[i, j]:,}", f"{off[i, j] / matrix[i].sum():.1%}"] for i, j in places if off[i, j] > 0
    ]


def costs(run: RunData) -> list[list[str]]:
    """By phase: trainable parameters, seconds, CPU seconds of all ranks, messages of the rank that has most."""
    results, rows = run.results, []
    counts = {
        "local": sum(results.parameters.local),
        "dnn": results.parameters.dnn,
        "coherent_transfer": results.parameters.coherent,
        "coherent_scratch": results.parameters.coherent,
        "global": results.parameters.of_global,
    }
    trained = {name: training.network for name, training in TRAININGS.items()}
    names = {"read": "reading", "gather": "gather", **trained, "evaluation": "evaluation", "examination": "attribution"}
    for phase, words in names.items():
        seconds = results.seconds_of(phase)
        if seconds is None:
            continue
        sent, count = results.communication.get(phase, {}), counts.get(phase)
        per_step = sent.get("bytes_per_step")
        rows.append(
            [
                {"local": "the local CNNs"}.get(phase, words),
                "" if count is None else f"{count:,}",
                f"{seconds:,.1f}",
                f"{results.core_seconds.get(phase, 0.0):,.1f}",
                f"{int(sent.get('calls', 0)):,}",
                f"{int(sent.get('bytes', 0)):,}",
                "" if per_step is None else f"{per_step:,.0f}",
            ]
        )
    return rows


@dataclass(frozen=True)
class MeanAttribution:
    """How far the subdomains moved a strategy's decisions, means over the examined samples.

    Attributes:
        overall: (S,).
        by_class: (K, S), over the samples that are decided to be of each class; NaN without any.
    """

    overall: Any
    by_class: Any


def mean_attribution(values: Any, decided: Any, num_classes: int) -> MeanAttribution:
    """Means of an (n, S) of ``/influence`` in decisions.h5; ``decided`` is (n,)."""
    means = np.full((num_classes, values.shape[1]), np.nan)
    for k in np.unique(decided):
        means[k] = values[decided == k].mean(0)
    return MeanAttribution(values.mean(0), means)
