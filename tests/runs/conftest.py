"""A small run, and this process as the one rank of its job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdd.config.schema import Config
from hpcdd.mpi.communicator import Comm
from hpcdd.runs.training_run import ranks_of


@pytest.fixture
def one_rank() -> Iterator[Comm]:
    """Signal handlers, torch's number of threads and the time limit for the end of MPI are as before afterwards."""
    with ranks_of(None) as comm:
        yield comm


@pytest.fixture
def config(tiny: Path, tmp_path: Path) -> Config:
    """Two subdomains, in the run directory ``run``."""
    return Config.model_validate(
        {
            "output": str(tmp_path / "run"),
            "progress": "off",
            "data": {"file": str(tiny)},
            "decomposition": {"grid": [1, 2]},
            "model": {"name": "vgg1", "local_width": 2},
            "coherent": {"starts": []},
        }
    )
