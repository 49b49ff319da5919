"""``hpcdd prepare``: a parser for each kind of source, and the options that all kinds share."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from functools import partial

from ..data.prepare.importers import FILE_PER_IMAGE, IMPORTERS, WITHOUT_SOURCE
from ..data.prepare.request import PrepareRequest
from .parser import Parser, file_path, parse


def declare(parser: Parser) -> None:
    """Adds the kinds."""
    parser.describe(
        "Makes a dataset file (HDF5) from a data set in its published form, and a contact sheet (.png) of it.\n"
        "`hpcdd prepare KIND --help` documents the options of a kind.",
        *(importer.EXAMPLES[0] for importer in IMPORTERS.values()),
        usage="hpcdd prepare KIND SOURCE OUT.h5 [OPTIONS]",
    )
    kinds = {kind: (importer.SUMMARY, partial(_declare_kind, kind)) for kind, importer in IMPORTERS.items()}
    parser.add_commands("kind of source", kinds, "KIND")


def request(arguments: Sequence[str]) -> PrepareRequest:
    """Reads a command line.

    Raises:
        UserError: an unknown kind or option, for which the message names the closest known one; an invalid value.
        SystemExit: after ``--help``.
    """
    parsed = parse("prepare", declare, arguments)
    kind = parsed.command.removeprefix("prepare ")
    given = vars(parsed.given)
    common = {field.name for field in dataclasses.fields(PrepareRequest)}
    options = {name: given.pop(name) for name in list(given) if name not in common}
    return PrepareRequest(kind=kind, options=options, command=shlex.join(["hpcdd", "prepare", *arguments]), **given)


def run_without_mpi(arguments: Sequence[str]) -> None:
    """See :func:`hpcdd.data.prepare.conversion.run`."""
    wanted = request(arguments)
    from ..data.prepare import conversion

    conversion.run(wanted)


def _declare_kind(kind: str, parser: Parser) -> None:
    importer = IMPORTERS[kind]
    parser.describe(f"Makes a dataset file from {importer.SUMMARY}.", *importer.EXAMPLES)
    if kind not in WITHOUT_SOURCE:
        parser.add_argument("source", type=file_path, metavar="SOURCE", help="file or folder, in its published form")
    parser.add_argument(
        "out", type=file_path, metavar="OUT.h5", help="dataset file to write; OUT.png is written next to it"
    )
    importer.add_arguments(parser.add_argument_group(f"options of {kind}"))
    _add_common(parser)
    if kind in FILE_PER_IMAGE:
        _add_work(parser)


def _add_common(parser: Parser) -> None:
    splits = parser.add_argument_group("splits")
    splits.add_argument(
        "--test-fraction",
        type=float,
        metavar="F",
        help="fraction of every class that becomes the test split, if the source has none (default: 0.2)",
    )
    splits.add_argument(
        "--validation-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="fraction of every class that becomes the validation split, if the source has none (default: 0)",
    )
    splits.add_argument("--seed", type=int, default=0, help="seed of the splits, and of a phantom (default: 0)")
    for split in ("train", "test"):
        splits.add_argument(
            f"--{split}-samples",
            type=int,
            metavar="N",
            help=f"take the first N samples of the {split} split with equally many of each class (default: all)",
        )
    described = parser.add_argument_group("description stored in the file")
    described.add_argument("--name", help="name of the data set (default: the source's)")
    described.add_argument(
        "--class-names",
        metavar="A,B,...",
        help="if the source names its classes: all of them in the order they should have, each as NAME or "
        "OLD=NEW; if it numbers them: a name for each number, in ascending order (default: the source's)",
    )
    described.add_argument("--source-note", help="where the data set comes from (default: the source's path)")
    described.add_argument("--licence", default="", help="its licence")
    layout = parser.add_argument_group("layout of the file")
    layout.add_argument(
        "--grid",
        metavar="G1,G2,...",
        help="store the pixels in chunks that suit the boxes of this decomposition.grid, one number per "
        "axis (2,2), so a rank reads little more than its own (default: whole images)",
    )
    layout.add_argument("--overlap", metavar="P", help="decomposition.overlap of these boxes (2, or 2,2)")
    layout.add_argument(
        "--coarse",
        metavar="B",
        help="store also the images averaged in blocks of B pixels along each axis (2), or of B1,B2,... "
        "(2,2): with decomposition.coarse and this block, a rank reads these (default: it averages the images while "
        "reading)",
    )
    layout.add_argument(
        "--compression", type=int, default=4, choices=range(10), metavar="0-9", help="gzip level (default: 4; 0: none)"
    )


def _add_work(parser: Parser) -> None:
    work = parser.add_argument_group("work")
    work.add_argument(
        "--skip-bad", action="store_true", help="skip bad files and count them (default: stop at the first)"
    )
    work.add_argument("--threads", type=int, metavar="N", help="threads that decode files (default: one per core)")
