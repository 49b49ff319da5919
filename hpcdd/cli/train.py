"""``hpcdd train``: one run, begun or resumed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.errors import UserError
from .parser import Parser, parse

if TYPE_CHECKING:
    from pathlib import Path

    from ..mpi.communicator import Comm
    from ..runs.resume import Job, TrainRequest


def declare(parser: Parser) -> None:
    """Adds the options, among them one for every field of the configuration."""
    parser.describe(
        "Trains local CNNs on subimages, one per subdomain, and combines their outputs.\n"
        "Without CONFIG (a YAML file), the packaged quick start runs: its settings (configs/quickstart.yaml) take the\n"
        "place of the defaults listed below. They are tuned for its family of CNNs, fastN. With a model.name of\n"
        "another family, the training settings that local, coherent and baseline share, except epochs, take their\n"
        "listed defaults. Options may also be written with underscores, like the fields of a YAML file.",
        "mpirun -n 4 hpcdd train",
        "mpirun -n 4 hpcdd train configs/cifar10_vgg3.yaml --local.epochs 2 --decomposition.grid 4,4",
        "mpirun -n 2 hpcdd train --resume",
        usage="hpcdd train [CONFIG] [--section.key VALUE ...] [--resume] [--profile] [--print-config]",
    )
    parser.add_argument("--print-config", action="store_true", help="Print the resolved configuration; train nothing.")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Resume the run in --output, or else the newest unfinished runs/NAME-K; without CONFIG, with "
        "the run's own configuration. (An unfinished run in --output is also resumed without --resume.)",
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="Write a trace of ten steps of every phase and rank to profile/ in the run directory, for Perfetto.",
    )
    parser.add_fields(shown=True)


def request(arguments: Sequence[str]) -> TrainRequest:
    """Reads a command line; mistakes in fields of the configuration are left to whoever reads its file.

    Raises:
        UserError: an option lacks its value.
    """
    from ..runs.resume import TrainRequest

    parsed = parse("train", declare, arguments)
    given = parsed.given
    return TrainRequest(parsed.file, parsed.overrides, given.resume, given.profile, given.print_config)


def run(comm: Comm, arguments: Sequence[str]) -> None:
    """Called by all ranks.

    Raises:
        UserError: on all ranks, with every mistake; and what :func:`hpcdd.runs.pipeline.train` raises.
    """
    from ..config import loading

    job = comm.on_root(lambda: _resolved(arguments))
    if job.print_only or job.done:
        if comm.is_root:
            print(loading.to_yaml(job.config) if job.print_only else f"{job.config.output} is complete\n", end="")
        return
    comm.startup.mark("configuration")
    from ..runs import pipeline

    comm.startup.mark("imports")
    directory = pipeline.train(comm, job)
    report_at_end(comm, directory, job.config.run.report)


def report_at_end(comm: Comm, folder: Path, wanted: bool) -> None:
    """Root writes the report of what is complete, for which the others wait."""
    if wanted:
        comm.on_root(lambda: write_report(folder))


def write_report(folder: Path) -> None:
    """On root: writes the report into the directory of a complete run or study; a failure is only printed."""
    try:
        from ..report import reports  # fails without matplotlib; only root needs it

        reports.write([folder], folder)
    except Exception as error:
        why = str(error).replace("\n", "; ") if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(
            f"hpcdd: warning: the report was not written ({why}); run `hpcdd report {folder}` to write it",
            file=sys.stderr,
            flush=True,
        )


def _resolved(arguments: Sequence[str]) -> Job:
    """On root: the job; of a complete run the data set is compared here, for nobody will read it."""
    from ..runs import resume

    job = resume.resolve(request(arguments))
    if job.done and job.record is not None:
        named, recorded = job.config.data.file, job.record["config"]["data"]["file"]
        if os.path.abspath(named) not in (recorded, os.path.abspath(recorded)):
            from ..data.format import inspect, resolve

            resume.check_facts(job, {**job.record, "dataset": inspect(resolve(named)).fingerprint})
    return job
