"""The page of a run: what was trained, how well each strategy classifies, and which subimages mattered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts import metrics
from ..artifacts.metrics import SUMMARY
from ..artifacts.predictions import SplitPredictions
from ..config.loading import to_yaml
from ..core import yaml_text
from ..core.names import STRATEGIES
from . import mosaic
from . import run_facts as facts
from . import run_figures as draw
from .drawing import SIZE, Figure, Figures, plain
from .mosaic import Tile
from .page import Section
from .run_data import RunData, read
from .style import plain_numbers

_MOST_EXAMPLES, _MOST_SINGLE, _MOST_CLASSES = 9, 9, 12
"""Tiles of examples, of single images in one figure, and of classes."""
_ROOM = 18
"""Letters of a class name that have room above an image."""
_MOST_LABELS = 16
"""Subdomains up to which numbers are written on the boxes of an image."""
_HEAT = (60, 256)
"""Classes and subdomains up to which attribution is drawn as a matrix."""


def section(folder: Path, output: Path) -> Section:
    """Reads a run and draws its figures.

    Args:
        folder: the run directory.
        output: where the page will stand; figures go into ``figures/`` there.

    Raises:
        UserError: it holds no complete run, or a file in it is damaged.
        OSError: a figure can't be written.
    """
    run = read(folder)
    predictions = run.predictions
    predicted, num_classes = predictions.predicted(predictions.final), len(predictions.class_names)
    matrix = metrics.confusion(predicted, predictions.labels, num_classes)
    return Section(
        f"{run.results.dataset.name}: {run.results.name}",
        "run.html",
        head=facts.head(run),
        notes=facts.notes(run),
        split=predictions.split,
        final=STRATEGIES[predictions.final].title,
        numbered=list(enumerate(predictions.class_names)) if _written(predictions) else [],
        shortened=_in_full(predictions.class_names),
        cards=facts.cards(run),
        gained=facts.gained(run),
        overview=_overview(run, Figures(output)),
        strategies_head=[
            "strategy",
            "accuracy (95% interval)",
            *[SUMMARY[key] for key in SUMMARY if key != "accuracy"],
        ],
        strategies=facts.table_of_strategies(predictions),
        pairs=facts.pairs(predictions),
        confused=facts.most_confused(matrix, predictions.class_names),
        costs=facts.costs(run),
        quality=_quality(run, Figures(output), matrix),
        curves=_curves(run, Figures(output)),
        attributions=_attributions(run, Figures(output)),
        single=_single(run, Figures(output)),
        settings=to_yaml(run.config),
        environment=yaml_text.dump(_environment(run)),
    )


def _environment(run: RunData) -> dict[str, Any]:
    results = run.results
    return {"devices": results.devices, "memory of each rank, MiB": [round(b / 2**20) for b in results.memory]}


def _overview(run: RunData, figures: Figures) -> Figures:
    """What combining the local CNNs gains: accuracy against CPU seconds, and accuracies with their intervals."""
    predictions = run.predictions
    with figures.draw("overview", "test accuracy of each strategy against the CPU seconds needed to train it") as axes:
        draw.overview(axes, facts.spent(run), facts.transfer_sequence(run))
    accuracies = facts.accuracy_intervals(predictions)
    local = (predictions.local == predictions.labels[:, None]).mean(0).tolist()
    with figures.draw("strategies", "accuracy of each strategy", (SIZE[0], 1.2 + 0.3 * len(accuracies))) as axes:
        draw.strategies(axes, accuracies, local)
    return figures


def _curves(run: RunData, figures: Figures) -> Figures:
    """Loss and accuracy against epochs and seconds; the validation split's where there is one."""
    watched = any(line.validation_loss is not None for line in run.lines)
    for name, label, value in (
        ("loss", "training loss", lambda line: line.loss),
        (
            "accuracy",
            "validation accuracy" if watched else "training accuracy",
            lambda line: line.validation_accuracy if watched else line.accuracy,
        ),
    ):
        for seconds in (False, True):
            against = "seconds" if seconds else "epochs"
            with figures.draw(f"{name}-{against}", f"{label} of every training against {against}") as axes:
                draw.curves(axes, run, value, seconds=seconds)
                axes.set_ylabel(label)
                if name == "loss":
                    axes.set_yscale("log")
                    plain_numbers(axes.yaxis)
    return figures


def _quality(run: RunData, figures: Figures, matrix: Any) -> Figures:
    """Confusion, classes, calibration."""
    predictions = run.predictions
    names = [_short(name) for name in predictions.class_names]
    if draw.is_drawn(len(names)):
        with figures.draw("confusion", "confusion matrix of the final strategy", (SIZE[0], SIZE[0])) as axes:
            draw.confusion(axes, matrix, names)
    with figures.draw("classes", "accuracy of each class", (SIZE[0], draw.classes_height(len(names)))) as axes:
        draw.recalls(axes, metrics.recalls(matrix), names, predictions.final)
    with figures.draw("calibration", "accuracy against confidence", (SIZE[0], 4.0)) as axes:
        calibrations = [
            (name, STRATEGIES[name].heading, metrics.calibration(predictions.strategies[name], predictions.labels))
            for name in dict.fromkeys(("average", "dnn", predictions.final))
        ]
        draw.reliability(axes, calibrations)
    return figures


def _attributions(run: RunData, figures: Figures) -> Figures:
    """Examples with their boxes; mean attribution over all images and by class, drawn over an image and as a matrix."""
    predictions, decomposition = run.predictions, run.decomposition
    examples = [number for number, reason in enumerate(predictions.reasons) if reason == "example"] or [0]
    chosen = examples[: _MOST_EXAMPLES if len(decomposition.image) == 2 else 3]
    labels = predictions.labels[predictions.shown]
    tiles = [Tile(predictions.images[n], _short(predictions.class_names[labels[n]])) for n in chosen]
    alternative = f"{len(tiles)} images with the boxes of their subimages"
    mosaic.draw(figures, "images", alternative, tiles, decomposition, most=3)
    ablation, gradient = predictions.ablation[predictions.final], predictions.gradient[predictions.final]
    picture = _average_image(predictions)
    tiles = [
        Tile(picture, f"all images: {form}", _scaled(means), _numbers(means, unit))
        for form, means, unit in (
            ("replaced by its mean", ablation.mean(0), 100.0),
            ("gradient", gradient.mean(0), 1.0),
        )
    ]
    mosaic.draw(figures, "attribution", "mean attribution of each subimage", tiles, decomposition, most=2)
    classes = len(predictions.class_names)
    by_class = facts.attribution_by_class(ablation, predictions.predicted(predictions.final), classes)
    most = float(np.nanmax(np.abs(by_class))) or 1.0
    tiles = []
    for k in [k for k in range(classes) if not np.isnan(by_class[k, 0])][:_MOST_CLASSES]:
        of_class = by_class[k]
        title = _short(predictions.class_names[k])
        tiles.append(Tile(_example(predictions, k, picture), title, _scaled(of_class, most), _numbers(of_class, 100.0)))
    alternative = "mean attribution of each subimage for predictions of each class"
    mosaic.draw(figures, "attribution-classes", alternative, tiles, decomposition)
    if classes <= _HEAT[0] and by_class.shape[1] <= _HEAT[1]:
        with figures.draw("attribution-matrix", alternative, (SIZE[0], draw.classes_height(classes))) as axes:
            names = [_short(name) for name in predictions.class_names]
            draw.heat(axes, 100 * by_class, names)
    return figures


def _single(run: RunData, figures: Figures) -> list[tuple[str, Figure]]:
    """Figures of single images, by the reason for showing them: explanation and figure."""
    predictions, decomposition = run.predictions, run.decomposition
    predicted, ablation = predictions.predicted(predictions.final), predictions.ablation[predictions.final]
    explanations: list[str] = []
    for reason, explanation in _REASONS.items():
        chosen = [n for n, image_reason in enumerate(predictions.reasons) if image_reason == reason]
        tiles = []
        for n in chosen[: _MOST_SINGLE if len(decomposition.image) == 2 else 3]:
            row = predictions.shown[n]
            truth, choice = (_short(predictions.class_names[k]) for k in (predictions.labels[row], predicted[row]))
            votes = predictions.local[row] if _written(predictions) else []
            names = truth if truth == choice else f"{truth}\n→ {choice}"
            wrong = [bool(k != predictions.labels[row]) for k in votes]
            tiles.append(Tile(predictions.images[n], names, _scaled(ablation[row]), [str(k) for k in votes], wrong))
        if not tiles:
            continue
        mosaic.draw(figures, f"single-{reason}", explanation, tiles, decomposition)
        explanations.append(explanation)
    return list(zip(explanations, figures, strict=True))


_REASONS = {
    "rescued": "Most local CNNs are wrong; the model is correct.",
    "lost": "The majority vote of the local CNNs is correct; the model is wrong.",
    "example": "Other images, one or two from each class.",
}


def _written(predictions: SplitPredictions) -> bool:
    """Whether the predictions of the local CNNs are written on the images."""
    return bool(predictions.local.shape[1] <= _MOST_LABELS)


def _scaled(values: Any, most: float | None = None) -> list[float]:
    """Values divided by their greatest magnitude, or by another one."""
    most = float(np.abs(values).max()) if most is None else most
    return [float(value) / (most or 1.0) for value in values]


def _numbers(values: Any, unit: float) -> Sequence[str]:
    """Values as text; none for many subdomains."""
    return [f"{unit * value:+.1f}" for value in values] if len(values) <= _MOST_LABELS else ()


def _average_image(predictions: SplitPredictions) -> Any:
    """The mean of the shown images, (C, *spatial)."""
    return predictions.images.astype(np.float64).mean(0).astype(predictions.images.dtype)


def _example(predictions: SplitPredictions, label: int, default: Any) -> Any:
    """A shown image of a class, if possible one that is classified correctly; ``default`` without any."""
    labels = predictions.labels[predictions.shown]
    predicted = predictions.predicted(predictions.final)[predictions.shown]
    for chosen in ((labels == label) & (predicted == label), labels == label):
        if chosen.any():
            return predictions.images[np.flatnonzero(chosen)[0]]
    return default


def _in_full(names: Sequence[str]) -> str:
    """A sentence with the full names that the confusion matrix does not show, for its caption; may be empty."""
    if not draw.is_drawn(len(names)):
        return ""
    if len(names) > draw.NAMED:
        return f" By number: {', '.join(f'{number} {name}' for number, name in enumerate(names))}."
    cut = [name for name in names if len(name) > _ROOM]
    return f" In full: {', '.join(cut)}." if cut else ""


def _short(name: str) -> str:
    """A class name that fits above an image."""
    return plain(name if len(name) <= _ROOM else f"{name[: _ROOM - 1]}…")
