"""``hpcdd scale``: points of a strong or weak scaling study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .parser import Parser, documented, file_path, parse

if TYPE_CHECKING:
    from ..mpi.communicator import Comm
    from ..studies.scaling_file import ScalingRequest


def declare(parser: Parser) -> None:
    """Adds the options."""
    from ..config.scaling_study import ScalingStudy

    parser.describe(
        "Measures one point of a strong or weak scaling study, or several, and appends them to a file.\n"
        "What the file already holds is not measured again.\n\nfields of STUDY, a YAML file:\n"
        + documented(ScalingStudy),
        "mpirun -n 2 hpcdd scale configs/scaling_strong.yaml --ranks 1,2",
        usage="mpirun -n N hpcdd scale STUDY [--output FILE] [--ranks N,N,...] [--phases P,P,...] [--repeats R] "
        "[--section.key VALUE ...]",
    )
    parser.add_argument("--output", type=file_path, metavar="FILE", help="default: STUDY.jsonl, in this folder")
    parser.add_argument("--ranks", type=_numbers, metavar="N,N,...", help="instead of the study's")
    parser.add_argument("--phases", type=_names, metavar="P,P,...", help="instead of the study's")
    parser.add_argument("--repeats", type=_number, metavar="R", help="instead of the study's")
    parser.add_fields("STUDY", "YAML file", required="STUDY")


def request(arguments: Sequence[str]) -> ScalingRequest:
    """Reads a command line.

    Raises:
        UserError: with every mistake in the study, its configuration and on the command line.
    """
    from ..studies.scaling_file import scaling_request

    parsed = parse("scale", declare, arguments)
    given = vars(parsed.given)
    output = given.pop("output")
    options = {name: value for name, value in given.items() if value is not None}
    return scaling_request(str(parsed.file), parsed.overrides, output=output, options=options)


def run(comm: Comm, arguments: Sequence[str]) -> None:
    """Called by all ranks; see :func:`hpcdd.studies.scaling.run`."""
    wanted = comm.on_root(lambda: request(arguments))
    from ..studies import scaling

    scaling.run(comm, wanted)


def _number(text: str) -> Any:
    """A number; any other text is reported with the other mistakes of the study."""
    return int(text) if text.isdecimal() else text


def _numbers(text: str) -> list[Any]:
    return [_number(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    return text.split(",")
