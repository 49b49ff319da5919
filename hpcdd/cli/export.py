"""``hpcdd export``: a trained model as one graph for other programs."""

from __future__ import annotations

from collections.abc import Sequence

from .parser import Parser, add_model, file_path, parse


def declare(parser: Parser) -> None:
    """Adds the options."""
    parser.describe(
        "Writes a trained model as one graph that maps images, as the data set stores them, to class probabilities,\n"
        "for batches of any size. Its outputs are compared with the model's own before the file is written.\n"
        "ONNX needs `pip install '.[export]'` in a checkout of hpcdd.",
        "hpcdd export runs/quickstart-001 quickstart.onnx",
        "hpcdd export runs/quickstart-001 average.pt2 --strategy average",
    )
    add_model(parser)
    parser.add_argument("out", type=file_path, metavar="OUT", help="output file: .onnx, or .pt2 for torch.export.load")


def run_without_mpi(arguments: Sequence[str]) -> None:
    """See :func:`hpcdd.inference.export.run`."""
    given = parse("export", declare, arguments).given
    from ..inference import export

    export.run(given.run, given.out, given.strategy, given.user_factory)
