"""What a job finds in its run directory once the lock is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.config.schema import Config
from hpcdd.core.errors import InUseError
from hpcdd.mpi.communicator import world
from hpcdd.runs import pipeline
from hpcdd.runs.resume import Job
from hpcdd.runs.run_directory import RunDirectory


def test_a_run_that_another_job_has_completed_meanwhile_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "output": str(tmp_path / "run"),
            "progress": "off",
            "data": {"file": str(tiny)},
            "decomposition": {"grid": [1, 1]},
            "model": {"name": "vgg1", "local_width": 2},
            "local": {"epochs": 1},
            "aggregation": {"epochs": 1},
            "coherent": {"starts": []},
        }
    )
    pipeline.train(world().duplicate(), Job(config, print_only=False, study=True))
    directory = RunDirectory(tmp_path / "run")
    record, results = directory.record(), directory.results.read_bytes()
    assert record is not None
    assert record["complete"]
    seen_before_the_lock = Job(config, print_only=False, study=True, record={**record, "complete": False})
    with pytest.raises(InUseError, match="another job has completed .*run in the meantime"):
        pipeline.train(world().duplicate(), seen_before_the_lock)
    assert directory.record() == record
    assert directory.results.read_bytes() == results
