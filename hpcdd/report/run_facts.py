"""The numbers and sentences on the page of a run; pure functions of the run's files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..artifacts import metrics
from ..artifacts.metrics import SUMMARY
from ..artifacts.predictions import SplitPredictions
from ..core.names import CLASSIFIERS, PHASES, STRATEGIES, TRAININGS, PhaseName
from ..decomposition.boxes import by
from ..studies.hypotheses import LEVEL, holm
from .run_data import RunData

_MOST_PAIRS = 10
_NOT_SHOWN: tuple[PhaseName, ...] = ("start", "restore", "record")
"""Phases without a row in the table of costs."""


@dataclass(frozen=True)
class AccuracyInterval:
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
        """The heading of the strategy."""
        return STRATEGIES[self.name].heading


def accuracy_intervals(predictions: SplitPredictions) -> list[AccuracyInterval]:
    """The accuracy of every strategy, in their order."""
    from scipy.stats import binomtest

    intervals = []
    for name in predictions.strategies:
        test = binomtest(int((predictions.predicted(name) == predictions.labels).sum()), len(predictions.labels))
        interval = test.proportion_ci(0.95, method="wilson")
        intervals.append(AccuracyInterval(name, test.statistic, interval.low, interval.high))
    return intervals


def final_accuracy(predictions: SplitPredictions) -> AccuracyInterval:
    """The accuracy of the final strategy."""
    return next(accuracy for accuracy in accuracy_intervals(predictions) if accuracy.name == predictions.final)


def head(run: RunData) -> list[str]:
    """What was trained on what, and how it ended, in sentences."""
    results, config, predictions = run.results, run.config, run.predictions
    data, boxes = results.dataset, len(run.decomposition.boxes)
    grid = "given" if run.decomposition.parts is None else by(run.decomposition.parts)
    final = final_accuracy(predictions)
    total, devices = results.seconds_of("total") or 0.0, sorted({kind.partition(":")[0] for kind in results.devices})
    coarse = " and a coarse one" if run.decomposition.coarse is not None else ""
    overlap = f", overlapping by {by(run.decomposition.overlap)} pixels" if any(run.decomposition.overlap) else ""
    return [
        f"{config.model.name} of width {results.width.local} on each of {boxes} subimages ({grid}{overlap}){coarse} "
        f"of {data.name}: {data.train:,} training and {data.test:,} test images of {by(data.image_shape)}, "
        f"{data.classes} classes.",
        f"The {_named(predictions.final)}: {final.accuracy:.4f} of the {predictions.split} images are classified "
        f"correctly (95% interval {final.low:.4f} to {final.high:.4f}).",
        f"{results.ranks} rank{'s' if results.ranks > 1 else ''} on {results.hosts} host"
        f"{'s' if results.hosts > 1 else ''} ({', '.join(devices)}, {results.threads_per_rank} thread"
        f"{'s' if results.threads_per_rank > 1 else ''} each), {total:,.0f} seconds, seed {results.seed}.",
    ]


def cards(run: RunData) -> list[tuple[str, str]]:
    """The headline numbers: value and label."""
    results, predictions = run.results, run.predictions
    final = final_accuracy(predictions)
    test = results.accuracy["test"]
    entries = [
        (
            f"{final.accuracy:.3f}",
            f"{STRATEGIES[predictions.final].title}: accuracy (95% {final.low:.3f} to {final.high:.3f})",
        )
    ]
    if predictions.final != "dnn" and test.dnn is not None:
        entries.append((f"{test.dnn:.3f}", "DNN on the local CNNs"))
    if test.local:
        entries.append((f"{max(test.local):.3f}", "best local CNN"))
    total = sum(seconds for phase, seconds in results.core_seconds.items() if phase in TRAININGS)
    entries.append(
        (f"{total:,.0f} s", f"CPU seconds of training, on {results.ranks} rank{'s' if results.ranks > 1 else ''}")
    )
    sent = [of_phase["bytes_per_step"] for of_phase in results.communication.values() if "bytes_per_step" in of_phase]
    if sent:
        entries.append(
            (f"{max(sent):,.0f} B", "sent and received per rank in a coherent step; the local phase sends nothing")
        )
    return entries


def spent(run: RunData) -> list[tuple[str, str, float, float]]:
    """Of the best local CNN and each strategy: name, heading, CPU seconds of all ranks until trained, accuracy."""
    results, test = run.results, run.results.accuracy["test"]
    # Other rules cost as much as the average.
    shown = {*transfer_sequence(run), "average", "dnn", "coherent_scratch", "global"}
    rows = [("local", "best local CNN", results.core_seconds_of("local"), max(test.local))] if test.local else []
    rows += [
        (name, STRATEGIES[name].heading, results.core_seconds_of(name), rate)
        for name in CLASSIFIERS
        if name in shown and (rate := test.of(name)) is not None
    ]
    return rows


def gained(run: RunData) -> str:
    """Sentences on what each step of the method has added to the test accuracy, and on the alternatives."""
    test = run.results.accuracy["test"]
    rates = {name: rate for name in CLASSIFIERS if (rate := test.of(name)) is not None}
    steps = [name for name in transfer_sequence(run) if name in rates]
    if not test.local or not steps:
        return ""
    before, last, sentences = max(test.local), "best local CNN", []
    for name in steps:
        sentences.append(f"The {_named(name)} is {_points(rates[name] - before)} the {last}.")
        before, last = rates[name], _named(name)
    sentences += [
        f"The {_named(name)} is {_points(rates[name] - before)} the {last}."
        for name in ("dnn", "coherent_scratch", "global")
        if name in rates and name not in steps
    ]
    if "global" not in rates:
        sentences.append("The global CNN was not trained for comparison (--baseline.enabled true trains it).")
    return " ".join(sentences)


def _named(strategy: str) -> str:
    """The name of a strategy within a sentence."""
    return STRATEGIES[strategy].title.replace(", ", " ")


def _points(difference: float) -> str:
    """A difference of accuracies, as text that the name of a strategy follows."""
    points = f"{100 * abs(difference):.1f}"
    return "level with" if points == "0.0" else f"{points} percentage points {'above' if difference > 0 else 'below'}"


def transfer_sequence(run: RunData) -> tuple[str, ...]:
    """The strategies on the way to the coherent model, whose DNN starts as trained, as the pool, or afresh."""
    ways = {"trained": ("average", "dnn"), "pool": ("log_pool",), "fresh": ("average",)}
    return *ways[run.config.coherent.dnn_start], "coherent_transfer"


def notes(run: RunData) -> list[str]:
    """What a reader should know before believing the figures."""
    predictions, results = run.predictions, run.results
    sentences = []
    if not predictions.is_whole:
        sentences.append(
            f"Figures for single strategies, classes and subimages refer to {len(predictions.rows):,} of the "
            f"{predictions.samples:,} {predictions.split} images, drawn with the seed."
        )
    if not run.config.coherent.starts:
        sentences.append("The coherent model was not trained (coherent.starts is []).")
    if all(line.validation_loss is None for line in run.lines):
        sentences.append(
            "There is no validation split, so curves show only the training split (see data.validation_fraction)."
        )
    if results.replicas > 1:
        sentences.append(f"Each local CNN was trained by {results.replicas} ranks on shared batches.")
    return sentences


def table_of_strategies(predictions: SplitPredictions) -> list[list[str]]:
    """Rows of a table: strategy, accuracy with its interval, and the other numbers of :data:`SUMMARY`."""
    rows = []
    for accuracy in accuracy_intervals(predictions):
        numbers = metrics.summary(predictions.strategies[accuracy.name], predictions.labels)
        others = [f"{numbers[key]:.4f}" for key in SUMMARY if key != "accuracy"]
        interval = f"{accuracy.accuracy:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f})"
        rows.append([STRATEGIES[accuracy.name].title, interval, *others])
    return rows


def pairs(predictions: SplitPredictions) -> list[list[str]]:
    """Neighbouring strategies by accuracy, and McNemar's exact test of their difference.

    The test is two-sided, on the images that exactly one of both classifies correctly (Q. McNemar, Psychometrika 12,
    1947); the p values of all neighbours are corrected together by Holm's method.
    """
    from scipy.stats import binomtest

    accuracies, labels = accuracy_intervals(predictions), predictions.labels
    correct = {entry: predictions.predicted(entry.name) == labels for entry in accuracies}
    order = sorted(correct, key=lambda entry: -entry.accuracy)
    neighbours = list(itertools.pairwise(order))
    counts = [
        (int((correct[better] & ~correct[worse]).sum()), int((~correct[better] & correct[worse]).sum()))
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
    """The most frequent confusions: true class, predicted class, number of images, fraction of the true class."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:_MOST_PAIRS]
    places = [np.unravel_index(index, off.shape) for index in order]
    return [
        [names[i], names[j], f"{off[i, j]:,}", f"{off[i, j] / matrix[i].sum():.1%}"] for i, j in places if off[i, j] > 0
    ]


def costs(run: RunData) -> list[list[str]]:
    """Rows by phase: trainable parameters, seconds, CPU seconds of all ranks, messages of the rank with the most."""
    results, rows = run.results, []
    counts: dict[PhaseName, int | None] = {
        "local": sum(results.parameters.local),
        "dnn": results.parameters.dnn,
        "coherent_transfer": results.parameters.coherent,
        "coherent_scratch": results.parameters.coherent,
        "global": results.parameters.of_global,
    }
    for phase, label in PHASES.items():
        seconds = results.seconds_of(phase)
        if seconds is None or phase in _NOT_SHOWN:
            continue
        sent, count = results.communication.get(phase, {}), counts.get(phase)
        per_step = sent.get("bytes_per_step")
        rows.append(
            [
                label,
                "" if count is None else f"{count:,}",
                f"{seconds:,.1f}",
                f"{results.core_seconds.get(phase, 0.0):,.1f}",
                f"{int(sent.get('calls', 0)):,}",
                f"{int(sent.get('bytes', 0)):,}",
                "" if per_step is None else f"{per_step:,.0f}",
            ]
        )
    return rows


def attribution_by_class(values: Any, predicted: Any, num_classes: int) -> Any:
    """(K, S): mean of the attribution (n, S) by predicted class (n,); NaN for a class without predictions."""
    means = np.full((num_classes, values.shape[1]), np.nan)
    for k in np.unique(predicted):
        means[k] = values[predicted == k].mean(0)
    return means
