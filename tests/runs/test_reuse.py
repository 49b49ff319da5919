"""Importing the result of a phase from another run whose checkpoints are not all there."""

from __future__ import annotations

import shutil
from pathlib import Path

from hpcdd.artifacts.evaluation_cache import EvaluationCache
from hpcdd.config.schema import Config
from hpcdd.runs import resume
from hpcdd.runs.reuse import import_result, offers
from hpcdd.runs.run_directory import RunDirectory
from hpcdd.training.checkpoints.snapshot import Position
from hpcdd.training.checkpoints.store import CheckpointStore

FACTS = {"dataset": "f", "blocks": 40, "device": "cpu", "replicas": 1, "workers": 4, "bf16": False}


def test_the_local_cnns_of_a_run_are_imported_only_where_their_checkpoints_are_there(tmp_path: Path) -> None:
    source, target = (RunDirectory(tmp_path / name) for name in ("source", "target"))
    for run in (source, target):
        run.path.mkdir()
        run.write_record(resume.record_of(Config(), run.path.name, **FACTS))
    EvaluationCache(source.checkpoints, "source").add("dnn", {}, {})
    record = target.record()
    assert record is not None
    assert offers("local", source) is not None
    assert not import_result("local", source, target, record), "the folder is gone"
    source.training("local").mkdir()
    assert not import_result("local", source, target, record), "the folder is empty"
    store = CheckpointStore(source.training("local", 0), "source")
    position = Position(1, 0)
    store.publish(position, store.write(position, 0, b"weights"), {}, before=None)
    assert import_result("local", source, target, record)
    assert CheckpointStore(target.training("local", 0), "target").positions() == [position]
    shutil.rmtree(source.training("local"))
    assert not import_result("local", source, target, record)
