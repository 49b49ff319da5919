"""The command line of ``hpcdd plan``; knows neither torch nor MPI."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..config.parsers import COMMON, OWN, file_path, positive
from ..core.errors import UserError

_DESCRIPTION = """\
Says who would do what on N ranks, and at what cost: boxes, owners, parameters, memory of each rank, messages of a step.
With a machine file also the seconds of each phase, and the efficiency from 1 to 100,000 ranks. One plain process, no
MPI; nothing is trained. Every field of the configuration can be given as for `hpcdd train`.
"""


def parser() -> argparse.ArgumentParser:
    """Of ``hpcdd plan``; what it does not know belongs to the configuration."""
    made = argparse.ArgumentParser(
        prog="hpcdd plan",
        usage="hpcdd plan [CONFIG] -n N [--machine FILE] [--ranks-per-host R] [--threads T] [--picture FILE] "
        "[--own MODULE:FACTORY] [--section.key VALUE ...]",
        description=_DESCRIPTION,
        epilog="example:\n  mpirun -n 4 hpcdd bench step configs/quickstart.yaml --output machine.json\n"
        "  mpirun -n 4 hpcdd bench collectives configs/quickstart.yaml --output machine.json\n"
        "  hpcdd plan configs/quickstart.yaml -n 4 --machine machine.json --picture plan.png",
        **COMMON,
    )
    made.add_argument("-n", dest="ranks", type=positive, metavar="N", help="number of ranks")
    made.add_argument(
        "--machine", type=file_path, help="machine file, made by `hpcdd bench step` and `hpcdd bench collectives`"
    )
    made.add_argument(
        "--ranks-per-host",
        type=positive,
        metavar="R",
        help="ranks on each host (default: the most that the machine file was measured with; without one all N)",
    )
    made.add_argument(
        "--threads",
        type=positive,
        metavar="T",
        help="threads of each rank (default: OMP_NUM_THREADS, else the cores of a host divided by its ranks)",
    )
    made.add_argument("--own", **OWN)
    made.add_argument(
        "--picture", type=file_path, metavar="FILE", help="PNG of the boxes on a sample image (default: none)"
    )
    return made


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What stands behind ``hpcdd plan``, and the words that belong to the configuration.

    Raises:
        UserError: the number of ranks is not named, or a number is none.
    """
    try:
        own, rest = parser().parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"plan: {error}; see `hpcdd plan --help`") from error
    if own.ranks is None:
        raise UserError("plan needs the number of ranks: `hpcdd plan [CONFIG] -n N`")
    return own, rest
