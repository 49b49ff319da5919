"""A scaling study as it stands in a YAML file: data, no code, but for what ``model.name`` may name.

Every mistake is reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config import loading
from ..config.options import Overrides
from ..config.scaling_study import ScalingStudy
from ..config.schema import Config
from ..core.errors import UserError
from ..core.texts import hint


@dataclass(frozen=True)
class ScalingRequest:
    """What a job is asked to do.

    Attributes:
        study: what is measured.
        config: the problem.
        output: file that the measurements are appended to.
    """

    study: ScalingStudy
    config: Config
    output: Path


def scaling_request(
    file: str,
    overrides: Overrides | None = None,
    *,
    output: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> ScalingRequest:
    """The request made by a study's file and the command line.

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
        study = ScalingStudy.model_validate({**source.tree, **options})
    except ValidationError as error:
        for key_path, text in loading.mistakes(error, _nearest).items():
            where = "command line" if key_path[0] in options else source.where(key_path)
            problems.append(f"{where}: {text}")
    if isinstance(source.tree.get("config") or {}, dict):
        try:
            config = loading.load(None, overrides, source.section("config"))
        except UserError as error:
            problems.append(str(error))
    if study is None or config is None or problems:
        raise UserError("\n".join(problems))
    return ScalingRequest(study, config, output or Path(f"{path.stem}.jsonl"))


def _nearest(name: str) -> str:
    return hint(name, ScalingStudy.model_fields, f"the fields are {', '.join(ScalingStudy.model_fields)}")
