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
    own: str | None = None,
    format: str = "table",
    output: Path | None = None,
    split: str = "test",
    skip_bad: bool = False,
) -> None:
    """Decides on all images, and then prints or writes what was decided; nothing where one of them can't be read.

    Args:
        run: directory of a complete run, or its model.h5.
        paths: images; folders or archives of them; or dataset files.
        strategy: that decides; None for the best that is trained.
        own: the user's own factory that may be run, see :func:`hpcdd.models.registry.check_consent`.
        format: ``table``, ``csv`` or ``json``.
        output: file to write; None: it is printed.
        split: of dataset files.
        skip_bad: whether bad files are left out.

    Raises:
        UserError: no such model, strategy or images; a bad file, unless these are to be left out.
        WriteError: the file can't be written.
    """
    model = load(run, strategy, own)
    work = DecodePool(skip_bad=skip_bad)
    sources = open_sources(paths, model, split)
    found = predict(model, sources, work)
    text = {"table": found.to_table, "csv": found.to_csv, "json": found.to_json}[format]()
    if output is not None:
        with writing(output):
            write_bytes(output, text.encode())
    else:
        sys.stdout.write(text)
    # What is printed for programs is not mixed with words for people.
    out = sys.stderr if output is None and format != "table" else sys.stdout
    if found.accuracy is not None:
        print(f"accuracy: {found.accuracy:.4f}, {found.right:,} of {found.known:,} images with a known class", file=out)
    for note in (*(note for source in sources for note in source.notes()), *work.notes()):
        print(printable(note), file=out)
    if output is not None:
        print(f"predictions: {output}", file=out)


def predict(model: Classifier, sources: Sequence[Source], work: DecodePool) -> Predictions:
    """What the model decides on the images of all sources; in memory there is a batch of them at a time.

    Raises:
        UserError: a bad file, unless ``work`` leaves them out; or no good one.
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
    decided, probability, votes, labels = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Predictions(model.classes, model.strategy, names, decided, probability, votes, labels)
