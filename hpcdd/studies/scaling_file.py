"""A scaling study as it stands in a YAML file: data, no code, but for what ``model.name`` may name.

Every mistake is reported at once.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, ValidationInfo, field_validator

from ..config import loading
from ..config.loading import Source
from ..config.parsers import COMMON, documented, file_path
from ..config.schema import Config
from ..config.sections import Settings
from ..core.errors import UserError
from ..decomposition.rank_layout import MOST_THREADS

Phase = Literal["local", "alone", "gather", "dnn", "coherent"]


class Study(Settings):
    """What a study measures. Its problem stands below ``config``, as for ``hpcdd train``."""

    kind: Literal["strong", "weak"]
    """``strong``: the problem stays as it is. ``weak``: subdomains grow with the ranks; on n ranks the images are n
    times as large (repeated along their axes) and have n times as many subdomains, of the same size."""

    ranks: tuple[PositiveInt, ...] | None = None
    """Numbers of ranks that a job measures, as many as it has: each on its first ranks, while the others sleep. All
    take turns. Default: all its ranks."""

    phases: tuple[Phase, ...] = Field(default=("local", "gather", "dnn", "coherent"), min_length=1)
    """What is measured: a training step of ``local``, ``dnn`` (on root) and ``coherent``; ``gather``: all decisions on
    the training split come to root. ``alone``: as ``local``, but one rank after the other, while the rest sleep: the
    difference is what ranks that share a host's memory and caches cost each other."""

    repeats: PositiveInt = 5
    """How often everything takes a turn."""

    warm_up: PositiveInt = 2
    """Steps of each turn that are recorded, but don't count."""

    steps: PositiveInt = 10
    """Steps of each turn that count."""

    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 1
    """Threads of each rank (they count as OMP_NUM_THREADS): the same on any number of ranks."""

    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the configuration; see ``hpcdd train --help``."""

    @field_validator("ranks", "phases")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...] | None, info: ValidationInfo) -> tuple[Any, ...] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError(f"{info.field_name} is {list(value)}; name each once")
        return value


@dataclass(frozen=True)
class ScalingRequest:
    """What a job is asked to do.

    Attributes:
        study: what is measured.
        config: the problem.
        output: file that the measurements are appended to.
    """

    study: Study
    config: Config
    output: Path


def parser() -> argparse.ArgumentParser:
    """Of ``hpcdd scale``; what it does not know belongs to the configuration."""
    parser = argparse.ArgumentParser(
        prog="hpcdd scale",
        usage="mpirun -n N hpcdd scale STUDY [--output FILE] [--ranks N,N,...] [--phases P,P,...] [--repeats R] "
        "[--section.key VALUE ...]",
        description="Measures one point of a strong or weak scaling study, or several, and appends them to a file.\n"
        "What the file holds already is not measured again.\n\nfields of STUDY, a YAML file:\n" + documented(Study),
        epilog="example: mpirun -n 2 hpcdd scale configs/scaling_strong.yaml --ranks 1,2",
        **COMMON,
    )
    parser.add_argument("--output", type=file_path, metavar="FILE", help="default: STUDY.jsonl, in this folder")
    parser.add_argument("--ranks", metavar="N,N,...", help="instead of the study's")
    parser.add_argument("--phases", metavar="P,P,...", help="instead of the study's")
    parser.add_argument("--repeats", metavar="R", help="instead of the study's")
    return parser


def scaling_request(arguments: Sequence[str]) -> ScalingRequest:
    """Reads what stands behind ``hpcdd scale``.

    Raises:
        UserError: with every mistake in the study, its configuration and on the command line.
    """
    if not arguments or arguments[0].startswith("-"):
        raise UserError("scale: name a study, a YAML file, as the first word; see `hpcdd scale --help`")
    path = loading.path_of(arguments[0])
    try:
        own, rest = parser().parse_known_args(arguments[1:])
    except argparse.ArgumentError as error:
        raise UserError(f"scale: {error}; see `hpcdd scale --help`") from error
    if rest and not rest[0].startswith("-"):
        raise UserError(f"scale: takes one file, the study; {rest[0]!r} is another word")
    source = loading.read(path)
    tree = dict(source.tree)
    options: dict[str, Any] = {}
    if own.ranks is not None:
        options["ranks"] = [int(n) if n.isdecimal() else n for n in own.ranks.split(",")]
    if own.phases is not None:
        options["phases"] = own.phases.split(",")
    if own.repeats is not None:
        options["repeats"] = int(own.repeats) if own.repeats.isdecimal() else own.repeats
    problems, study = [], None
    try:
        study = Study.model_validate({**tree, **options})
    except ValidationError as error:
        for place, text in loading.mistakes(error, _nearest).items():
            where = "command line" if place[0] in options else source.where(place)
            problems.append(f"{where}: {text}")
    inner = tree.get("config") or {}
    if isinstance(inner, dict):
        lines = {place[1:]: line for place, line in source.lines.items() if place[0] == "config" and len(place) > 1}
        try:
            config, print_config = loading.parse(rest, Source(inner, lines, source.path))
            if print_config:
                problems.append("command line: --print_config belongs to `hpcdd train`")
        except UserError as error:
            problems.append(str(error))
    if study is None or problems:
        raise UserError("\n".join(problems))
    return ScalingRequest(study, config, Path(own.output or f"{path.stem}.jsonl"))


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, Study.model_fields, n=1)
    return f"; did you mean {close[0]}?" if close else f"; the fields are {', '.join(Study.model_fields)}"
