"""``hpcdd report``: a page of runs, of studies of runs, of scaling studies, of a headline."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from .parser import Parser, file_path, parse


def declare(parser: Parser) -> None:
    """Adds the options."""
    parser.describe(
        "Writes one HTML page, with figures, for runs, studies, scaling studies and headline benchmarks.\n"
        "Run: strategies compared, curves, costs, and which subimage drove each prediction.\n"
        "Study: its table (also as CSV and LaTeX), and the expected results compared with the measured ones.\n"
        "HEADLINE, a folder of `hpcdd bench headline`: test accuracy against seconds of training.\n"
        "DEVICE, a folder of `hpcdd bench device`: tests and steps of one device.\n"
        "Scaling study: speed-up and efficiency with ideal lines, time by phase, bytes per rank.",
        "hpcdd report runs/quickstart-001",
        "hpcdd report studies/quick",
        "hpcdd report scaling_strong.jsonl scaling_weak.jsonl --output report",
        usage="hpcdd report RUN|STUDYDIR|HEADLINE|DEVICE|SCALING.jsonl ... [--output FOLDER]",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a run directory, a study directory, a folder of `hpcdd bench headline` or `bench device`, or a file of "
        "`hpcdd scale`",
    )
    parser.add_argument(
        "--output",
        type=file_path,
        metavar="FOLDER",
        help="default: RUN, STUDYDIR or HEADLINE itself, or SCALING-report next to the first file",
    )


def run_without_mpi(arguments: Sequence[str], out: TextIO | None = None) -> None:
    """See :func:`hpcdd.report.reports.write`."""
    given = parse("report", declare, arguments).given
    from ..report import reports

    reports.write([Path(word) for word in given.paths], given.output, out or sys.stdout)
