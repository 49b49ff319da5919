"""The command lines of ``hpcdd predict`` and ``hpcdd export``."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence

from ..config.parsers import LAYOUT, OWN, StrictParser, file_path
from ..core.errors import UserError

FORMATS = ("table", "csv", "json")


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Reads the arguments of a command; options may stand between the others.

    Raises:
        UserError: an unknown option, where the message names the nearest right one, or a value that is none.
        SystemExit: after ``--help``.
    """
    arguments, unknown = parser.parse_known_intermixed_args(list(words))
    if unknown:
        name = unknown[0].partition("=")[0]
        close = difflib.get_close_matches(name, re.findall(r"--[a-z-]+", parser.format_usage()), n=1)
        hint = f"did you mean {close[0]}?" if close else f"see `{parser.prog} --help`"
        raise UserError(f"{parser.prog.removeprefix('hpcdd ')}: {name} is unknown; {hint}")
    return arguments


def of_predict() -> argparse.ArgumentParser:
    """Of ``hpcdd predict``."""
    made = StrictParser(
        prog="hpcdd predict",
        description="Classes of new images: what a trained model decides, how sure it is, and how the local CNNs vote "
        "on\ntheir own. Images are prepared as `hpcdd prepare` did those of the data set. One process, no MPI.",
        epilog="examples:\n"
        "  hpcdd predict runs/flowers-001 rose.jpg holiday/*.jpg\n"
        "  hpcdd predict runs/flowers-001 flower_photos --format csv --output flowers.csv\n"
        "  hpcdd predict runs/quickstart-001 data.h5 --split test --strategy majority",
        **LAYOUT,
    )
    _add_model(made)
    made.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images; folders or archives of them, of any depth; or dataset files (.h5). Where an image lies in a "
        "folder named after a class, or a dataset file knows its class, the accuracy is told",
    )
    made.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    made.add_argument("--output", type=file_path, metavar="FILE", help="write there (default: print)")
    made.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="test",
        help="of dataset files (default: test)",
    )
    made.add_argument(
        "--skip-bad", action="store_true", help="leave bad files out and name them (default: stop at the first)"
    )
    return made


def of_export() -> argparse.ArgumentParser:
    """Of ``hpcdd export``."""
    made = StrictParser(
        prog="hpcdd export",
        description="A trained model as one graph, from images as the data set stores them to the probabilities of the "
        "classes,\nfor batches of any size. It is checked against the model itself before it is written. ONNX needs "
        "pip install 'hpcdd[export]'.",
        epilog="examples:\n"
        "  hpcdd export runs/quickstart-001 quickstart.onnx\n"
        "  hpcdd export runs/quickstart-001 average.pt2 --strategy average",
        **LAYOUT,
    )
    _add_model(made)
    made.add_argument("out", type=file_path, metavar="OUT", help="file to make: .onnx, or .pt2 for torch.export.load")
    return made


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=file_path, metavar="RUN", help="directory of a complete run, or its model.h5 alone")
    parser.add_argument(
        "--strategy",
        metavar="NAME",
        help="that decides: average, majority, log_pool, dnn, coherent_transfer, coherent_scratch or global, as far as "
        "trained (default: the coherent model, without one the DNN)",
    )
    parser.add_argument("--own", **OWN)
