"""``hpcdd predict``: classes of new images, by a trained model, in one plain process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes, writing
from ..core.texts import printable
from ..data.prepare.importers.decode_pool import DecodePool
from .classifier import Classifier
from .image_inputs import Source, open_sources
from .load import load
from .prediction_tables import Predictions


def run(
    run: Path,
    paths: Sequence[str],
    *,
    strategy: str | None = None,
    user_factory: str | None = None,
    format: str = "table",
    output: Path | None = None,
    split: str = "test",
    skip_bad: bool = False,
) -> None:
    """Predicts the classes of all images, then prints or writes them; nothing if one of the images can't be read.

    Args:
        run: directory of a complete run, or its model.h5.
        paths: images; folders or archives of them; or dataset files.
        strategy: the strategy that makes the predictions; None for the best one that was trained.
        user_factory: the user's factory that may be called, see :func:`hpcdd.models.registry.check_consent`.
        format: ``table``, ``csv`` or ``json``.
        output: file to write; None: it is printed.
        split: of dataset files.
        skip_bad: whether bad files are left out.

    Raises:
        UserError: no such model, strategy or images; a bad file, unless these are to be left out.
        WriteError: the file can't be written.
    """
    model = load(run, strategy, user_factory)
    work = DecodePool(skip_bad=skip_bad)
    sources = open_sources(paths, model, split)
    predictions = predict(model, sources, work)
    text = {"table": predictions.to_table, "csv": predictions.to_csv, "json": predictions.to_json}[format]()
    if output is not None:
        with writing(output):
            write_bytes(output, text.encode())
    else:
        sys.stdout.write(text)
    # Output for programs is not mixed with text for people.
    out = sys.stderr if output is None and format != "table" else sys.stdout
    if predictions.accuracy is not None:
        counts = f"{predictions.correct:,} of {predictions.known:,} images with a known class"
        print(f"accuracy: {predictions.accuracy:.4f}, {counts}", file=out)
    for note in (*(note for source in sources for note in source.notes()), *work.notes()):
        print(printable(note), file=out)
    if output is not None:
        print(f"predictions: {output}", file=out)


def predict(model: Classifier, sources: Sequence[Source], work: DecodePool) -> Predictions:
    """Predicts the classes of the images of all sources, of which one batch at a time is in memory.

    Raises:
        UserError: a bad file, unless ``work`` skips them; or no image that can be read.
    """
    names: list[str] = []
    columns = []
    for source in sources:
        for batch in source.batches(model, work):
            probabilities, local = model.decide(batch.images)
            names += batch.names
            columns.append((probabilities.argmax(1), probabilities.max(1), local.argmax(2), batch.labels))
    if not columns:
        raise UserError(f"none of the images can be read; {work.report()}")
    predicted, probability, votes, labels = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Predictions(model.classes, model.strategy, names, predicted, probability, votes, labels)
