"""``hpcdd evaluate``: a trained model on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.names import SPLITS
from ..inference.evaluate_request import EvaluateRequest
from .parser import OWN, Parser, file_name, file_path, parse

if TYPE_CHECKING:
    from ..mpi.communicator import Comm


def declare(parser: Parser) -> None:
    """Adds the options."""
    parser.describe(
        "Computes accuracy and further metrics of every strategy of a trained model on a data set. Each rank loads\n"
        "the CNNs of its own subdomains and reads their boxes; on one rank it also works without mpirun. On the data\n"
        "set and split of the run, the accuracies are those of results.json.",
        "hpcdd evaluate runs/quickstart-001",
        "mpirun -n 4 hpcdd evaluate runs/quickstart-001 --data other.h5 --output evaluation",
        usage="hpcdd evaluate RUN [--data FILE] [--split SPLIT] [--output FOLDER]",
    )
    parser.add_argument("run", metavar="RUN", type=file_path, help="directory of a complete run, or its model.h5")
    parser.add_argument(
        "--data",
        metavar="FILE",
        type=file_name,
        help="a dataset file with images and classes like the run's, whose stored splits are used in full; "
        "default: the run's own, with its splits",
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: test")
    parser.add_argument(
        "--output", metavar="FOLDER", type=file_path, help="folder for evaluation.json and decisions.h5 (for reports)"
    )
    parser.add_argument("--own", **OWN)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")


def request(arguments: Sequence[str]) -> EvaluateRequest:
    """Reads a command line.

    Raises:
        UserError: an unknown option, or no run.
    """
    return EvaluateRequest(**vars(parse("evaluate", declare, arguments).given))


def run(comm: Comm, arguments: Sequence[str]) -> None:
    """Called by all ranks; see :func:`hpcdd.inference.evaluate.run_request`."""
    from ..inference import evaluate

    evaluate.run_request(comm, comm.on_root(lambda: request(arguments)))
