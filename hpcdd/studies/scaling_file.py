"""A scaling study as it stands in a YAML file: data, no code, but for what ``model.name`` may name.

Every mistake is reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, ValidationInfo, field_validator

from ..config import loading
from ..config.loading import Source
from ..config.options import Overrides
from ..config.schema import Config
from ..config.sections import Settings
from ..core.errors import UserError
from ..core.texts import hint
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


def scaling_request(
    file: str,
    overrides: Overrides | None = None,
    *,
    output: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> ScalingRequest:
    """What is asked for by a study and what is said beside it.

    Args:
        file: the study, a YAML file.
        overrides: fields of the configuration.
        output: file for the measurements; None: ``STUDY.jsonl`` in the current folder.
        options: fields of the study, instead of those of the file.

    Raises:
        UserError: with every mistake in the study, its configuration and on the command line.
    """
    path, options = loading.path_of(file), options or {}
    source = loading.read(path)
    problems, study, config = [], None, None
    try:
        study = Study.model_validate({**source.tree, **options})
    except ValidationError as error:
        for place, text in loading.mistakes(error, _nearest).items():
            where = "command line" if place[0] in options else source.where(place)
            problems.append(f"{where}: {text}")
    inner = source.tree.get("config") or {}
    if isinstance(inner, dict):
        lines = {place[1:]: line for place, line in source.lines.items() if place[0] == "config" and len(place) > 1}
        try:
            config = loading.load(None, overrides, Source(inner, lines, source.path))
        except UserError as error:
            problems.append(str(error))
    if study is None or config is None or problems:
        raise UserError("\n".join(problems))
    return ScalingRequest(study, config, output or Path(f"{path.stem}.jsonl"))


def _nearest(name: str) -> str:
    return hint(name, Study.model_fields, f"the fields are {', '.join(Study.model_fields)}")
