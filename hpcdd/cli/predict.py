"""``hpcdd predict``: predict the classes of new images with a trained model, in one plain process."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.names import SPLITS
from .parser import Parser, add_model, file_path, parse


def declare(parser: Parser) -> None:
    """Adds the options."""
    parser.describe(
        "Predicts the classes of new images: class, probability, and the votes of the local CNNs. Images are\n"
        "prepared as `hpcdd prepare` prepared those of the data set. One process, no MPI.",
        "hpcdd predict runs/flowers-001 rose.jpg holiday/*.jpg",
        "hpcdd predict runs/flowers-001 flower_photos --format csv --output flowers.csv",
        "hpcdd predict runs/quickstart-001 data.h5 --split test --strategy majority",
    )
    add_model(parser)
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images; folders or archives of images, at any depth; or dataset files (.h5). If an image is "
        "in a folder named after a class, or a dataset file gives its class, the accuracy is reported",
    )
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    parser.add_argument("--output", type=file_path, metavar="FILE", help="output file (default: print)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="split of dataset files (default: test)")
    parser.add_argument(
        "--skip-bad", action="store_true", help="skip bad files and name them (default: stop at the first)"
    )


def run_without_mpi(arguments: Sequence[str]) -> None:
    """See :func:`hpcdd.inference.predict.run`."""
    given = vars(parse("predict", declare, arguments).given)
    from ..inference import predict

    predict.run(given.pop("run"), given.pop("paths"), **given)
