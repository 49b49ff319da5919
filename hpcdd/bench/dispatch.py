"""``hpcdd bench``: which benchmark is asked for. Each is imported where it is wanted."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import loading
from ..config.schema import Config
from . import bench_options as command_line

if TYPE_CHECKING:
    from ..mpi.communicator import Comm


def run(comm: Comm, arguments: Sequence[str]) -> Path | None:
    """Called by all ranks; root prints.

    Args:
        comm: all ranks.
        arguments: the words behind ``hpcdd bench``.

    Returns:
        A folder of which a report is to be drawn; None where there is none.

    Raises:
        UserError: on all ranks.
    """

    def parse() -> tuple[argparse.Namespace, Config]:
        own, rest = command_line.parse(arguments)
        return own, loading.parse(rest)[0]

    own, config = comm.on_root(parse)
    if own.what == "coherent":
        from . import coherent_step

        coherent_step.run(comm, config, own.widths, own.rounds, own.steps)
    elif own.what == "collectives":
        from . import collectives

        collectives.run(comm, config, own.rounds, own.output)
    elif own.what == "headline":
        from . import headline

        headline.run(comm, config, own.output)
        return Path(own.output)
    elif own.what == "train":
        from . import whole_run

        whole_run.run(comm, config, own.rounds)
    else:
        from . import step_times

        step_times.run(comm, config, own.rounds, own.steps, own.output)
    return None


def run_alone(arguments: Sequence[str]) -> None:
    """``bench io``, and the help of all benchmarks; needs neither torch nor MPI.

    Raises:
        UserError: naming every mistake.
    """
    if {"-h", "--help"} & set(arguments):
        command_line.parser().parse_known_args(list(arguments))
    from . import box_reading

    box_reading.run(*command_line.parse(arguments))
