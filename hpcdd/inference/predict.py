"""``hpcdd predict``: classes of new images, by a trained model, in one plain process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from ..core.errors import UserError
from ..core.files import write_bytes, writing
from ..core.texts import printable
from ..data.prepare.importers.decode_pool import DecodePool
from . import model_options
from .classifier import Classifier
from .image_inputs import Source, open_sources
from .load import load
from .prediction_tables import Predictions


def run(words: Sequence[str]) -> None:
    """Decides on all images, and then prints or writes what was decided; nothing where one of them can't be read.

    Args:
        words: what follows ``predict`` on the command line.

    Raises:
        UserError: no such model, strategy or images; a bad file, unless these are to be left out.
        WriteError: the file can't be written.
        SystemExit: after ``--help``.
    """
    own = model_options.parse(model_options.of_predict(), words)
    model = load(own.run, own.strategy, own.own)
    work = DecodePool(skip_bad=own.skip_bad)
    sources = open_sources(own.paths, model, own.split)
    found = predict(model, sources, work)
    text = {"table": found.to_table, "csv": found.to_csv, "json": found.to_json}[own.format]()
    if own.output is not None:
        with writing(own.output):
            write_bytes(own.output, text.encode())
    else:
        sys.stdout.write(text)
    # What is printed for programs is not mixed with words for people.
    out = sys.stderr if own.output is None and own.format != "table" else sys.stdout
    if found.accuracy is not None:
        print(f"accuracy: {found.accuracy:.4f}, {found.right:,} of {found.known:,} images of known class", file=out)
    for note in (*(note for source in sources for note in source.notes()), *work.notes()):
        print(printable(note), file=out)
    if own.output is not None:
        print(f"predictions: {own.output}", file=out)


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
