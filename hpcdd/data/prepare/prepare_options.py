"""The command line of ``hpcdd prepare``: a parser for each kind of source, and the options that all kinds share."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any

from ...config.parsers import LAYOUT, StrictParser, file_path
from ...core.errors import UserError
from .importers import FILE_PER_IMAGE, IMPORTERS, WITHOUT_SOURCE

_DESCRIPTION = """\
Makes a dataset file (HDF5) from a data set as its publisher ships it, and beside it a contact sheet (.png).
`hpcdd prepare KIND --help` documents the options of a kind.

kinds:
"""


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Reads the command's arguments.

    Args:
        words: what follows ``prepare``.

    Returns:
        All options, ``kind`` and ``source`` (None for a kind without) among them; the options of the kind by name.

    Raises:
        UserError: an unknown kind or option, where the message names the nearest right one; a value that is none.
        SystemExit: after ``--help``.
    """
    if not words:
        raise UserError(f"prepare: name the kind of source, which is one of {', '.join(IMPORTERS)}; see --help")
    if words[0] in ("-h", "--help"):
        lines = [f"  {kind:<9} {importer.SUMMARY}" for kind, importer in IMPORTERS.items()]
        examples = [f"  {importer.EXAMPLES[0]}" for importer in IMPORTERS.values()]
        print(
            "usage: hpcdd prepare KIND SOURCE OUT.h5 [OPTIONS]\n",
            _DESCRIPTION + "\n".join(lines),
            "\nexamples:\n" + "\n".join(examples),
            sep="\n",
        )
        raise SystemExit(0)
    kind = words[0]
    if kind not in IMPORTERS:
        close = difflib.get_close_matches(kind, IMPORTERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the kinds are {', '.join(IMPORTERS)}"
        raise UserError(f"prepare: {kind!r} is no kind of source; {hint}")
    own, parser = _parsers(kind)
    arguments, unknown = parser.parse_known_args(words[1:])
    if unknown:
        options = re.findall(r"--[a-z-]+", parser.format_usage())
        close = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=1)
        hint = f"did you mean {close[0]}?" if close else f"see `hpcdd prepare {kind} --help`"
        raise UserError(f"prepare {kind}: {unknown[0]!r} is not understood; {hint}")
    arguments.kind = kind
    return arguments, {name: getattr(arguments, name) for name in vars(own.parse_args([]))}


def _parsers(kind: str) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """The options of a kind alone, and the whole parser of the kind."""
    importer = IMPORTERS[kind]
    own = argparse.ArgumentParser(add_help=False)
    importer.add_arguments(own.add_argument_group(f"options of {kind}"))
    parser = StrictParser(
        prog=f"hpcdd prepare {kind}",
        description=f"Makes a dataset file from {importer.SUMMARY}.",
        epilog="\n".join([f"example{'s' * (len(importer.EXAMPLES) > 1)}:", *(f"  {e}" for e in importer.EXAMPLES)]),
        parents=[own],
        **LAYOUT,
    )
    if kind in WITHOUT_SOURCE:
        parser.set_defaults(source=None)
    else:
        parser.add_argument("source", type=file_path, metavar="SOURCE", help="file or folder as its publisher ships it")
    parser.add_argument("out", type=file_path, metavar="OUT.h5", help="dataset file to make; OUT.png is made beside it")
    _add_common(parser)
    if kind in FILE_PER_IMAGE:
        _add_work(parser)
    else:
        parser.set_defaults(skip_bad=False, threads=None)
    return own, parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    splits = parser.add_argument_group("splits")
    splits.add_argument(
        "--test-fraction",
        type=float,
        metavar="F",
        help="share of every class that becomes the test split, where the source has none (default: 0.2)",
    )
    splits.add_argument(
        "--validation-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="share of every class that becomes the validation split, where the source has none (default: 0)",
    )
    splits.add_argument("--seed", type=int, default=0, help="of the splits, and of a phantom (default: 0)")
    for split in ("train", "test"):
        splits.add_argument(
            f"--{split}-samples",
            type=int,
            metavar="N",
            help=f"take the first N samples of the {split} split with all classes alike (default: all)",
        )
    described = parser.add_argument_group("what the file says of itself")
    described.add_argument("--name", help="name of the data set (default: the source's)")
    described.add_argument(
        "--class-names",
        metavar="A,B,...",
        help="where the source names its classes: all of them in the order that they are to have, each as NAME or "
        "OLD=NEW; where it numbers them: a name for each number, in ascending order (default: the source's)",
    )
    described.add_argument("--source-note", help="where the data set comes from (default: the source's path)")
    described.add_argument("--licence", default="", help="its licence")
    layout = parser.add_argument_group("layout of the file")
    layout.add_argument(
        "--grid",
        metavar="G1,G2,...",
        help="store the pixels in chunks that suit the boxes of this decomposition.grid, one number per axis (2,2), "
        "so that a rank reads little more than its own (default: whole images)",
    )
    layout.add_argument("--overlap", metavar="P", help="decomposition.overlap of these boxes (2, or 2,2)")
    layout.add_argument(
        "--coarse",
        metavar="B",
        help="store also the images averaged in blocks of B pixels along each axis (2), or of B1,B2,... (2,2): with "
        "decomposition.coarse and that block a rank reads these (default: it averages the images as it reads them)",
    )
    layout.add_argument(
        "--compression", type=int, default=4, choices=range(10), metavar="0-9", help="gzip level (default: 4; 0: none)"
    )


def _add_work(parser: argparse.ArgumentParser) -> None:
    work = parser.add_argument_group("work")
    work.add_argument(
        "--skip-bad", action="store_true", help="leave bad files out and count them (default: stop at the first)"
    )
    work.add_argument("--threads", type=int, metavar="N", help="that decode files (default: one per core)")
