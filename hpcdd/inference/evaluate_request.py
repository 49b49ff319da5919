"""What ``hpcdd evaluate`` is asked to do; knows neither torch nor MPI."""

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
        split: of it.
        output: folder for evaluation.json and decisions.h5; None: they are not written.
        own: see :func:`hpcdd.artifacts.model_file.read_model`.
        device: where CNNs work.
    """

    run: Path
    data: str | None = None
    split: str = "test"
    output: Path | None = None
    own: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
