"""The command line of ``hpcdd evaluate``; knows neither torch nor MPI."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config.parsers import COMMON, OWN, file_name, file_path
from ..core.errors import UserError
from ..data.format import SPLITS

_DESCRIPTION = """\
Accuracy and further metrics of every strategy of a trained model on a data set. Each rank loads the CNNs of its own
subdomains and reads their boxes; on one rank it works without mpirun too. On the data set and the split of the run the
accuracies are those of results.json.
"""


@dataclass(frozen=True)
class EvaluateRequest:
    """What is to be evaluated.

    Attributes:
        run: directory of a run, or its model.h5.
        data: dataset file, or ``embedded``; None for the run's own.
        split: of it.
        output: folder for evaluation.json and decisions.h5; None: they are not written.
        own: see :func:`hpcdd.artifacts.model_file.read_model`.
        device: where CNNs work.
    """

    run: Path
    data: str | None
    split: str
    output: Path | None
    own: str | None
    device: Literal["auto", "cpu", "cuda"]


def parser() -> argparse.ArgumentParser:
    """Of ``hpcdd evaluate``."""
    made = argparse.ArgumentParser(
        prog="hpcdd evaluate",
        usage="hpcdd evaluate RUN [--data FILE] [--split SPLIT] [--output FOLDER]",
        description=_DESCRIPTION,
        epilog="examples:\n  hpcdd evaluate runs/quickstart-001\n"
        "  mpirun -n 4 hpcdd evaluate runs/quickstart-001 --data other.h5 --output evaluation",
        **COMMON,
    )
    made.add_argument("run", metavar="RUN", type=file_path, help="directory of a run that is complete, or its model.h5")
    made.add_argument(
        "--data",
        metavar="FILE",
        type=file_name,
        help="a dataset file with images and classes like the run's, whose stored splits are taken whole; "
        "default: the run's own, with its splits",
    )
    made.add_argument("--split", choices=SPLITS, default="test", help="default: test")
    made.add_argument(
        "--output", metavar="FOLDER", type=file_path, help="takes evaluation.json and decisions.h5 (for reports)"
    )
    made.add_argument("--own", **OWN)
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    return made


def evaluate_request(arguments: Sequence[str]) -> EvaluateRequest:
    """Reads what stands behind ``hpcdd evaluate``.

    Raises:
        UserError: a word that is not known, or none.
    """
    if not arguments or arguments[0].startswith("-"):
        raise UserError("evaluate: name the directory of a run as the first word; see `hpcdd evaluate --help`")
    try:
        found, unknown = parser().parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"evaluate: {error}; see `hpcdd evaluate --help`") from error
    if unknown:
        raise UserError(f"evaluate: {unknown[0]!r} is not known; see `hpcdd evaluate --help`")
    return EvaluateRequest(**vars(found))
