"""The page of a run: what was trained, how well each strategy decides, and which subimage decided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts import metrics
from ..artifacts.metrics import SUMMARY
from ..artifacts.names import STRATEGIES
from ..artifacts.predictions import SplitPredictions
from ..config.loading import to_yaml
from ..core import yaml_text
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
_WORDS = 16
"""Subdomains up to which their votes are written on an image."""
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
    found = run.decisions
    matrix = metrics.confusion(found.decided(found.final), found.labels, len(found.class_names))
    return Section(
        f"{run.results.dataset.name}: {run.results.name}",
        "run.html",
        head=facts.head(run),
        notes=facts.notes(run),
        split=found.split,
        final=STRATEGIES[found.final].title,
        numbered=list(enumerate(found.class_names)) if _written(found) else [],
        shortened=_in_full(found.class_names),
        cards=facts.cards(run),
        gained=facts.gained(run),
        overview=_overview(run, Figures(output)),
        strategies_head=[
            "strategy",
            "accuracy (95% interval)",
            *[SUMMARY[key] for key in SUMMARY if key != "accuracy"],
        ],
        strategies=facts.table_of_strategies(found),
        pairs=facts.pairs(found),
        confused=facts.most_confused(matrix, found.class_names),
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
    """What combining the local CNNs gains: accuracy against CPU seconds, and with its intervals."""
    found = run.decisions
    with figures.draw("overview", "test accuracy of each strategy against the CPU seconds needed to train it") as axes:
        draw.overview(axes, facts.spent(run), facts.chain(run))
    shares = facts.shares(found)
    local = (found.local == found.labels[:, None]).mean(0).tolist()
    with figures.draw("strategies", "accuracy of each strategy", (SIZE[0], 1.2 + 0.3 * len(shares))) as axes:
        draw.strategies(axes, shares, local)
    return figures


def _curves(run: RunData, figures: Figures) -> Figures:
    """Loss and accuracy against epochs and seconds; the validation split's where there is one."""
    watched = any(line.validation_loss is not None for line in run.lines)
    for name, words, value in (
        ("loss", "training loss", lambda line: line.loss),
        (
            "accuracy",
            "validation accuracy" if watched else "training accuracy",
            lambda line: line.validation_accuracy if watched else line.accuracy,
        ),
    ):
        for seconds in (False, True):
            against = "seconds" if seconds else "epochs"
            with figures.draw(f"{name}-{against}", f"{words} of every training against {against}") as axes:
                draw.curves(axes, run, value, seconds=seconds)
                axes.set_ylabel(words)
                if name == "loss":
                    axes.set_yscale("log")
                    plain_numbers(axes.yaxis)
    return figures


def _quality(run: RunData, figures: Figures, matrix: Any) -> Figures:
    """Confusion, classes, calibration."""
    found = run.decisions
    names = [_short(name) for name in found.class_names]
    if draw.is_drawn(len(names)):
        with figures.draw("confusion", "confusion matrix of the final strategy", (SIZE[0], SIZE[0])) as axes:
            draw.confusion(axes, matrix, names)
    with figures.draw("classes", "accuracy of each class", (SIZE[0], draw.classes_height(len(names)))) as axes:
        draw.recalls(axes, metrics.by_class(matrix).recall, names, found.final)
    with figures.draw("calibration", "accuracy against confidence", (SIZE[0], 4.0)) as axes:
        sure = [
            (name, STRATEGIES[name].heading, metrics.calibration(found.strategies[name], found.labels))
            for name in dict.fromkeys(("average", "dnn", found.final))
        ]
        draw.reliability(axes, sure)
    return figures


def _attributions(run: RunData, figures: Figures) -> Figures:
    """Examples with the boxes on them; means over all images and over each class: over an image, and as a matrix."""
    found, decomposition = run.decisions, run.decomposition
    examples = [number for number, reason in enumerate(found.reasons) if reason == "example"] or [0]
    chosen = examples[: _MOST_EXAMPLES if len(decomposition.image) == 2 else 3]
    tiles = [Tile(found.images[n], _short(found.class_names[found.labels[found.shown[n]]])) for n in chosen]
    words = f"{len(tiles)} images with the boxes of their subimages"
    mosaic.draw(figures, "images", words, tiles, decomposition, most=3)
    decided, classes = found.decided(found.final), len(found.class_names)
    ablation = facts.mean_attribution(found.ablation[found.final], decided, classes)
    gradient = facts.mean_attribution(found.gradient[found.final], decided, classes)
    picture = _average_image(found)
    tiles = [
        Tile(picture, f"all images: {form}", _scaled(its.overall), _numbers(its.overall, unit))
        for form, its, unit in (("replaced by its mean", ablation, 100.0), ("gradient", gradient, 1.0))
    ]
    mosaic.draw(figures, "attribution", "mean attribution of each subimage", tiles, decomposition, most=2)
    most = float(np.nanmax(np.abs(ablation.by_class))) or 1.0
    tiles = []
    for k in [k for k in range(classes) if not np.isnan(ablation.by_class[k, 0])][:_MOST_CLASSES]:
        of_class = ablation.by_class[k]
        title = _short(found.class_names[k])
        tiles.append(Tile(_example(found, k, picture), title, _scaled(of_class, most), _numbers(of_class, 100.0)))
    words = "mean attribution of each subimage for predictions of each class"
    mosaic.draw(figures, "attribution-classes", words, tiles, decomposition)
    if classes <= _HEAT[0] and ablation.by_class.shape[1] <= _HEAT[1]:
        with figures.draw("attribution-matrix", words, (SIZE[0], draw.classes_height(classes))) as axes:
            names = [_short(name) for name in found.class_names]
            draw.heat(axes, 100 * ablation.by_class, names)
    return figures


def _single(run: RunData, figures: Figures) -> list[tuple[str, Figure]]:
    """Single images by the reason why they are shown: explanation, figure."""
    found, decomposition = run.decisions, run.decomposition
    decided, ablation = found.decided(found.final), found.ablation[found.final]
    reasons: list[str] = []
    for reason, told in _REASONS.items():
        chosen = [n for n, its in enumerate(found.reasons) if its == reason]
        tiles = []
        for n in chosen[: _MOST_SINGLE if len(decomposition.image) == 2 else 3]:
            row = found.shown[n]
            truth, choice = (_short(found.class_names[k]) for k in (found.labels[row], decided[row]))
            votes = found.local[row] if _written(found) else []
            names = truth if truth == choice else f"{truth}\n→ {choice}"
            wrong = [bool(k != found.labels[row]) for k in votes]
            tiles.append(Tile(found.images[n], names, _scaled(ablation[row]), [str(k) for k in votes], wrong))
        if not tiles:
            continue
        mosaic.draw(figures, f"single-{reason}", told, tiles, decomposition)
        reasons.append(told)
    return list(zip(reasons, figures, strict=True))


_REASONS = {
    "rescued": "Most local CNNs are wrong; the model is right.",
    "lost": "The majority vote of the local CNNs is right; the model is wrong.",
    "example": "Other images, one or two from each class.",
}


def _written(found: SplitPredictions) -> bool:
    return bool(found.local.shape[1] <= _WORDS)


def _scaled(values: Any, most: float | None = None) -> list[float]:
    """Values over their greatest magnitude, or another one."""
    most = float(np.abs(values).max()) if most is None else most
    return [float(value) / (most or 1.0) for value in values]


def _numbers(values: Any, unit: float) -> Sequence[str]:
    """Values in words, of few subdomains."""
    return [f"{unit * value:+.1f}" for value in values] if len(values) <= _WORDS else ()


def _average_image(found: SplitPredictions) -> Any:
    """The mean of the shown images, (C, *spatial)."""
    return found.images.astype(np.float64).mean(0).astype(found.images.dtype)


def _example(found: SplitPredictions, label: int, otherwise: Any) -> Any:
    """A shown image of a class that is classified correctly; else any of the class; else ``otherwise``."""
    labels, decided = found.labels[found.shown], found.decided(found.final)[found.shown]
    for chosen in ((labels == label) & (decided == label), labels == label):
        if chosen.any():
            return found.images[np.flatnonzero(chosen)[0]]
    return otherwise


def _in_full(names: Sequence[str]) -> str:
    """A sentence with the names that the confusion matrix lacks, for its caption; empty without such."""
    if not draw.is_drawn(len(names)):
        return ""
    if len(names) > draw.NAMED:
        return f" By number: {', '.join(f'{number} {name}' for number, name in enumerate(names))}."
    cut = [name for name in names if len(name) > _ROOM]
    return f" In full: {', '.join(cut)}." if cut else ""


def _short(name: str) -> str:
    """A class name that fits above an image."""
    return plain(name if len(name) <= _ROOM else f"{name[: _ROOM - 1]}…")
