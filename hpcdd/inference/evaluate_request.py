"""The request of ``hpcdd evaluate``; imports neither torch nor MPI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class EvaluateRequest:
    """What is to be evaluated.

    Attributes:
        run: directory of a run, or its model.h5.
        data: dataset file, or ``embedded``; None for the run's own.
        split: of the data set.
        output: folder for evaluation.json and decisions.h5; None: they are not written.
        user_factory: see :func:`hpcdd.artifacts.model_file.open_model`.
        device: where CNNs are evaluated.
    """

    run: Path
    data: str | None = None
    split: str = "test"
    output: Path | None = None
    user_factory: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
