"""The settings of a scaling study, as they stand in its YAML file next to its problem."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator

from ..core.environment import MOST_THREADS
from .sections import Settings

Phase = Literal["local", "alone", "gather", "dnn", "coherent"]


class ScalingStudy(Settings):
    """What a study measures. Its problem stands below ``config``, as for ``hpcdd train``."""

    kind: Literal["strong", "weak"]
    """``strong``: the problem size is fixed. ``weak``: subdomains grow with the ranks; on n ranks the images are n
    times as large (repeated along their axes) and have n times as many subdomains, of the same size."""

    ranks: tuple[PositiveInt, ...] | None = None
    """Numbers of ranks to measure in one job, interleaved. Each measurement uses the first ranks of the job; the others
    are idle. Default: all ranks of the job."""

    phases: tuple[Phase, ...] = Field(default=("local", "gather", "dnn", "coherent"), min_length=1)
    """What is measured: a training step of ``local``, ``dnn`` (on root) and ``coherent``; ``gather``: the local
    outputs on the training split are gathered on root. ``alone``: as ``local``, but one rank at a time: the
    difference is the cost of sharing a host's memory and caches."""

    repeats: PositiveInt = 5
    """Number of repeats of each measurement, interleaved with the others."""

    warm_up: PositiveInt = 2
    """Warm-up steps of each measurement, recorded but not counted."""

    steps: PositiveInt = 10
    """Counted steps of each measurement."""

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
