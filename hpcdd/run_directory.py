"""The folder of a run: where it is, what is in it, and that nothing which lies there is overwritten."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from .errors import UserError


class RunDirectory:
    """Names of the files in a run's folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.results = path / "results.json"
        self.model = path / "model.h5"

    def log(self, rank: int) -> Path:
        """The log of one rank."""
        return self.path / "logs" / f"rank-{rank:04d}.log"


def check_output(output: str | None) -> None:
    """Refuses a folder that holds something; to be called before any work.

    Raises:
        UserError: ``output`` is a file, or a folder that is not empty.
    """
    if output is None:
        return
    path = Path(output)
    try:
        is_file, is_full = path.exists() and not path.is_dir(), path.is_dir() and any(path.iterdir())
    except (OSError, ValueError) as error:  # too long a name, for one
        raise UserError(f"output is {output!r}, which can't be a folder: {error}") from error
    if is_file:
        raise UserError(f"output is {output}, which is a file; name a folder that is empty or does not exist")
    if is_full:
        raise UserError(f"output is {output}, a folder that is not empty; nothing is overwritten, name another one")


def create(output: str | None, name: str) -> RunDirectory:
    """Makes the folder of a run, on root.

    Args:
        output: ``output`` of the configuration; None for runs/NAME-K with the first free K.
        name: ``name`` of the configuration.

    Raises:
        UserError: it can't be made.
    """
    check_output(output)
    try:
        path = _first_free(Path("runs"), name) if output is None else Path(output)
        (path / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the run directory can't be made: {error}; use --output FOLDER where you may write") from error
    return RunDirectory(path)


def start_log(path: Path) -> logging.Logger:
    """This rank's log file, appended to; its folder exists.

    Raises:
        UserError: this rank's host does not see the run directory that root has made.
    """
    logger = logging.getLogger("hpcdd")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path.parent} can't be written on host {socket.gethostname()} ({error.strerror}); "
            "output must be a folder on a file system that all hosts share"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    return logger


def _first_free(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    number = 1
    while True:
        path = folder / f"{name}-{number:03d}"
        try:
            path.mkdir()  # fails where another job has just taken the number
            return path
        except FileExistsError:
            number += 1
