"""Live curves for TensorBoard: scalars at the end of every epoch, one TensorBoard run for each network.

So that one chart shows all subdomains and phases, each network has a folder (``local/0000``, ``dnn``,
``coherent_transfer`` ...) and all have the same tags. A file is opened and closed for each point: any number of
subdomains needs neither handles nor threads, and a job that is killed loses nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import shutil
import time
from pathlib import Path

from ...core.errors import UserError
from ...core.seeding import WHOLE
from ...training.status import Status

_FILE = "events.out.tfevents.hpcdd"
"""TensorBoard knows its files by the word in the middle."""


def check() -> None:
    """To be called before any work.

    Raises:
        UserError: the package is not there.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "run.tensorboard is true, but the package tensorboard is not installed; run `pip install tensorboard`, or "
            "`pip install '.[tensorboard]'` in a checkout of hpcdd, or leave the setting out"
        )


class Board:
    """The folder that ``tensorboard --logdir`` shows; on root.

    An existing one is replaced: a resumed run writes the earlier epochs from its checkpoints.

    Args:
        folder: may be there already.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()

    def add(self, status: Status) -> None:
        """Appends the end of one epoch. What can't be written (a full disk) is left out, so that no training ends."""
        values = {
            "loss/training": status.loss,
            "loss/validation": status.validation_loss,
            "accuracy/training": status.accuracy,
            "accuracy/validation": status.validation_accuracy,
            "learning rate": status.learning_rate,
        }
        finite = {tag: value for tag, value in values.items() if value is not None and math.isfinite(value)}
        folder = self._folder / status.phase
        if status.subdomain != WHOLE:
            folder /= f"{status.subdomain:04d}"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / _FILE
            _append(path, _records(finite, status.epoch, begins=not path.exists()))


def _records(values: dict[str, float], step: int, *, begins: bool) -> bytes:
    """Events in TensorBoard's format, with the one that a file begins with where it ``begins``."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    stream, now = io.BytesIO(), time.time()
    writer = RecordWriter(stream)
    if begins:
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for tag, value in values.items():
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
    return stream.getvalue()


def _append(path: Path, content: bytes) -> None:
    """Writes all or, where that fails, nothing: half a record would end the file for its readers."""
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            whole = file.write(content) == len(content)
        except OSError:
            whole = False
        if not whole:
            file.truncate(end)
