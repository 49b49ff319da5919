"""``hpcdd plan``: everything that can be known of a run before it starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from .parser import OWN, Parser, file_path, parse, positive


def declare(parser: Parser) -> None:
    """Adds the options."""
    parser.describe(
        "Shows what N ranks would do and what it would cost: boxes, owners, parameters, memory of each rank, messages "
        "of a step.\nWith a machine file, also the seconds of each phase and the efficiency from 1 to 100,000 ranks. "
        "One plain process,\nno MPI; nothing is trained. Every setting can be given as for `hpcdd train`.",
        "mpirun -n 4 hpcdd bench step configs/quickstart.yaml --output machine.json",
        "mpirun -n 4 hpcdd bench collectives configs/quickstart.yaml --output machine.json",
        "hpcdd plan configs/quickstart.yaml -n 4 --machine machine.json --picture plan.png",
        usage="hpcdd plan [CONFIG] -n N [--machine FILE] [--ranks-per-host R] [--threads T] [--picture FILE] "
        "[--own MODULE:FACTORY] [--section.key VALUE ...]",
    )
    parser.add_argument("-n", dest="ranks", type=positive, metavar="N", required=True, help="number of ranks")
    parser.add_argument(
        "--machine",
        type=file_path,
        metavar="FILE",
        help="machine file, written by `hpcdd bench step` and `hpcdd bench collectives`",
    )
    parser.add_argument(
        "--ranks-per-host",
        type=positive,
        metavar="R",
        help="ranks on each host (default: the most ranks per host in the machine file; without one, all N)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="T",
        help="threads of each rank (default: OMP_NUM_THREADS, else the cores of a host divided by its ranks)",
    )
    parser.add_argument("--own", **OWN)
    parser.add_argument(
        "--picture", type=file_path, metavar="FILE", help="PNG of the boxes on a sample image (default: none)"
    )
    parser.add_fields()


def run_without_mpi(arguments: Sequence[str], out: TextIO | None = None) -> None:
    """See :func:`hpcdd.plan.overview.run`."""
    parsed = parse("plan", declare, arguments)
    from ..config import loading
    from ..plan import overview

    config = loading.load(parsed.file, parsed.overrides)
    given = vars(parsed.given)
    ranks, user_factory = given.pop("ranks"), given.pop("user_factory")
    overview.run(config, ranks, user_factory=user_factory, **given, out=out or sys.stdout)
