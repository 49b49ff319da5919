"""The log file of each rank, and what the user should know besides."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import UserError
from ..core.texts import printable_lines
from ..mpi.communicator import Comm


@contextlib.contextmanager
def rank_log(comm: Comm, path: Path) -> Iterator[logging.Logger]:
    """This rank's log file, appended to; its folder exists. Collective.

    Raises:
        UserError: on all ranks: a rank's host does not see the run directory that root has made.
    """
    handler = comm.on_all(lambda: _handler(path))
    logger = logging.getLogger("hpcdd")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()


def warn(log: logging.Logger, text: str) -> None:
    """Prints a warning, and logs it."""
    log.warning("%s", text)
    sys.stderr.write(f"hpcdd: warning: {printable_lines(text)}\n")
    sys.stderr.flush()


def _handler(path: Path) -> logging.Handler:
    try:
        handler = _LossyHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path.parent} can't be written on host {socket.gethostname()} ({error.strerror}); "
            "output must be a folder on a file system that all hosts share"
        ) from error
    handler.setFormatter(_Formatter("%(asctime)s %(message)s"))
    return handler


class _Formatter(logging.Formatter):
    """Logs are read on terminals."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        return printable_lines(super().format(record))


class _LossyHandler(logging.FileHandler):
    """A full disk does not end a training for a line of its log; checkpoints report that it is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leaves the line out."""
