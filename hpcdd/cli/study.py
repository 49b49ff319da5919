"""``hpcdd study``: every run of a study, in groups of ranks; or, with ``--dry-run``, what they would cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.errors import FailedRunsError, UserError
from .parser import OWN, Parsed, Parser, documented, file_path, parse, positive
from .train import report_at_end

if TYPE_CHECKING:
    from ..mpi.communicator import Comm
    from ..studies.study_request import StudyRequest


def declare(parser: Parser) -> None:
    """Adds the options."""
    from ..studies.study_file import StudyFile

    parser.describe(
        "Trains every run of a study. The N ranks work in groups of the size that a run needs; completed\n"
        "runs are not repeated, so the same command resumes a study that was stopped.\n\n"
        "fields of STUDY, a YAML file:\n" + documented(StudyFile),
        "hpcdd study configs/studies/quick.yaml --dry-run",
        "mpirun -n 8 hpcdd study configs/studies/transfer.yaml --variant quick",
        usage="mpirun -n N hpcdd study STUDY [--variant NAME] [--output STUDYDIR] [--only PATTERN] [--ranks R] "
        "[--retry] [--section.key VALUE ...]\n       hpcdd study STUDY --dry-run [--machine FILE] [...]",
    )
    parser.add_argument("--variant", metavar="NAME", help="one of the study's variants (default: none)")
    parser.add_argument(
        "--output", type=file_path, metavar="STUDYDIR", help="default: studies/NAME, or studies/NAME-VARIANT"
    )
    parser.add_argument("--only", metavar="PATTERN", help="only runs whose name matches, such as 'grid=2x2,*'")
    parser.add_argument("--ranks", type=positive, metavar="R", help="ranks of a run, instead of the study's")
    parser.add_argument("--retry", action="store_true", help="run failed runs again")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and their expected cost; train nothing")
    parser.add_argument("--machine", type=file_path, metavar="FILE", help="with --dry-run: machine file, for seconds")
    parser.add_argument("--own", **{**OWN, "help": f"with --dry-run: {OWN['help']}"})
    parser.add_fields("STUDY", "YAML file", required="STUDY")


def request(arguments: Sequence[str]) -> StudyRequest:
    """Reads a command line.

    Raises:
        UserError: with every mistake in the study, its runs' configurations and on the command line.
    """
    return _request(parse("study", declare, arguments))


def needs_mpi(arguments: Sequence[str]) -> bool:
    """Whether runs are trained."""
    return "--dry-run" not in arguments and "--dry_run" not in arguments


def run(comm: Comm, arguments: Sequence[str]) -> None:
    """Called by all ranks.

    Raises:
        FailedRunsError: on all ranks: runs have failed; and what :func:`hpcdd.studies.study.run` raises.
    """
    wanted = comm.on_root(lambda: request(arguments))
    from ..studies import study

    failed = study.run(comm, wanted)
    report_at_end(comm, wanted.output, any(one.config.run.report for one in wanted.runs))
    text = f"{failed} run{'s have' if failed > 1 else ' has'} failed; see above"
    comm.refuse(FailedRunsError(text) if failed else None)


def run_without_mpi(arguments: Sequence[str]) -> None:
    """``--dry-run``, see :func:`hpcdd.studies.dry_run.run`."""
    parsed = parse("study", declare, arguments)
    wanted = _request(parsed)
    from ..studies import dry_run

    dry_run.run(wanted, parsed.given.machine, user_factory=parsed.given.user_factory)


def _request(parsed: Parsed) -> StudyRequest:
    from ..studies.study_request import study_request

    given = vars(parsed.given).copy()
    options = {"machine": given.pop("machine"), "own": given.pop("user_factory")}
    if not given.pop("dry_run"):
        for option in [option for option, value in options.items() if value is not None]:
            raise UserError(f"command line: --{option} has no effect without --dry-run")
    return study_request(str(parsed.file), parsed.overrides, **given)
