"""A study of runs as it stands in a YAML file: data, no code.

The module that ``model.name`` may name is imported where runs are trained, see :mod:`hpcdd.models.registry`, and by
``--dry-run`` only with ``--own``.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, field_validator
from pydantic_core import PydanticCustomError

from ..config.sections import Settings
from ..core.errors import UserError
from ..core.names import StrategyName
from ..core.texts import printable
from .hypotheses import Hypothesis


def _axis(value: Any) -> Any:
    cases = isinstance(value, dict) and all(isinstance(fields, dict) for fields in value.values())
    if not value or not (isinstance(value, list) or cases):
        raise PydanticCustomError("axis", "use a list of values, or cases such as {label: {field: value}}")
    return value


def _matrix(value: Any) -> Any:
    if not value or not isinstance(value, dict):
        raise PydanticCustomError("matrix", "name at least one field with a list of its values")
    return value


Axis = Annotated[Any, BeforeValidator(_axis)]
"""Values of one field, or cases; see :mod:`hpcdd.studies.matrix`."""


class Table(Settings):
    """How the report shows a study."""

    columns: tuple[StrategyName, ...] | None = None
    """Strategies to compare. Default: all that were run."""


class Variant(Settings):
    """What one variant of a study changes."""

    title: Annotated[str, AfterValidator(printable)] | None = None
    """Instead of the study's."""

    config: dict[str, Any] = Field(default_factory=dict)
    """Settings that take precedence over those of the study's ``config``."""

    matrix: dict[str, Axis | None] = Field(default_factory=dict)
    """Axes that replace those of the same name, and further ones; null removes an axis."""

    ranks: PositiveInt | None = None
    """Instead of the study's."""

    expect: tuple[str, ...] | None = None
    """Instead of the study's."""

    table: Table | None = None
    """Instead of the study's."""


class StudyFile(Settings):
    """Runs that differ in a few fields, and what is expected of them."""

    title: Annotated[str, AfterValidator(printable)] = ""
    """Title of the report. Default: the name of the file."""

    config: dict[str, Any] = Field(default_factory=dict)
    """Settings that all runs have in common, as for ``hpcdd train``. Default: the default of every setting."""

    matrix: Annotated[dict[str, Axis], BeforeValidator(_matrix)]
    """By the full name of a setting (decomposition.grid), a list of its values; or by a name of your own, a mapping
    from the label of each case to the settings that it changes. Every combination is a run; ``seed`` repeats every
    combination."""

    ranks: PositiveInt | None = None
    """Ranks of a run. Default: one for each subdomain. A job with fewer ranks gives all of them to one run."""

    variants: dict[str, Variant] = Field(default_factory=dict)
    """By name, other values of title, config, matrix, ranks, expect and table; ``--variant NAME`` selects one."""

    expect: tuple[str, ...] = ()
    """The expected order of test accuracies, such as `dnn > average` or `coherent_transfer >= dnn`."""

    table: Table = Table()
    """How the report shows the study: ``columns``, the strategies to compare."""

    @field_validator("expect")
    @classmethod
    def _hypotheses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(str(Hypothesis.parse(text)) for text in value)
        except UserError as error:
            raise ValueError(f"expect: {error}") from error
