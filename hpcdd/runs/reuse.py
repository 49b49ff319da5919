"""Results of a training that another run has finished, imported instead of repeating the training.

Two runs with the same data, network, settings and seed train the same local CNNs (or the same global CNN), bit by bit.
So the final checkpoints of one are valid for the other as well, whose training is then complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifacts.evaluation_cache import EvaluationCache
from ..config.schema import is_batched
from ..core.errors import DamagedError, UserError
from ..core.files import digest, writing
from ..core.names import TRAININGS, TrainingName
from ..training.checkpoints.store import CheckpointStore
from .resume import in_todays_settings
from .run_directory import RunDirectory

SHARED: dict[TrainingName, TrainingName] = {"local": "dnn", "global": "global"}
"""By phase whose result runs can share, the phase whose evaluation says that it is complete."""
_SECTIONS: dict[TrainingName, tuple[str, ...]] = {
    "local": ("seed", "data", "augmentation", "model", "decomposition", "local"),
    "global": ("seed", "data", "augmentation", "model", "baseline"),
}
_EXCLUDED = {"data": {"file", "memory", "storage"}, "model": {"local_width"}}
"""Fields that don't affect the result; the data set itself is identified by its fingerprint and sample order."""


def identity(phase: TrainingName, record: Mapping[str, Any]) -> str:
    """A digest of all that determines the result of a phase; where it is the same, so is the result.

    Args:
        phase: one of :data:`SHARED`.
        record: of a run, see :class:`hpcdd.runs.resume.Job`; ``device`` and ``bf16`` may be left out where they are
            not known yet.
    """
    config, content = record["config"], {}
    for section in _SECTIONS[phase]:
        value = config[section]
        out = _EXCLUDED.get(section, set()) if (phase, section) != ("local", "model") else set()
        content[section] = {k: v for k, v in value.items() if k not in out} if isinstance(value, dict) else value
    sharing = record["replicas"] if phase == "local" else record["workers"]
    # Ranks that share batches round differently, or compute other batch statistics.
    content["sharing"] = [sharing, config["shared_batches"]] if sharing > 1 else []
    if phase == "local" and is_batched(config["batched"], record.get("device") or "cpu"):
        content["batched"] = record["workers"]  # which CNNs form a batch affects rounding
    if config[TRAININGS[phase].section]["precision"] == "auto":
        content["bf16"] = record.get("bf16")
    facts = [record["dataset"], record["blocks"], record.get("device")]
    return digest(json.dumps([phase, content, facts], sort_keys=True).encode())[:16]


def has(phase: TrainingName, source: RunDirectory, result: str) -> bool:
    """Whether a run has a result, by its identity without device and bf16, which are not known before the work."""
    offered = offers(phase, source)
    return offered is not None and result == identity(
        phase, {key: value for key, value in offered.items() if key not in ("device", "bf16")}
    )


def offers(phase: TrainingName, source: RunDirectory) -> dict[str, Any] | None:
    """The record of a run that has completed a phase; None where it has not, or it can't be read."""
    try:
        record = source.record()
        if record is None or "replicas" not in record:
            return None
        record = in_todays_settings(source.path, record)
    except UserError:
        return None
    return record if SHARED[phase] in EvaluationCache(source.checkpoints, record["run"]).phases else None


def import_result(
    phase: TrainingName, source: RunDirectory, directory: RunDirectory, record: Mapping[str, Any]
) -> bool:
    """Imports the final checkpoints of a phase, with what they have cost, unless the run has some of its own.

    Args:
        phase: one of :data:`SHARED`.
        source: the other run.
        directory: of this one, which holds its lock.
        record: of this one.

    Returns:
        Whether they were imported; not where the source's result is another one, is missing or is damaged.

    Raises:
        WriteError: they can't be written.
    """
    offered, target = offers(phase, source), directory.training(phase)
    if offered is None or identity(phase, offered) != identity(phase, record):
        return False
    folder = source.training(phase)
    subdomains = sorted(path.name for path in folder.glob("[0-9]*")) if phase == "local" else ["."]
    pairs = [
        (CheckpointStore(folder / name, offered["run"]), CheckpointStore(target / name, record["run"]))
        for name in subdomains
    ]
    if not pairs or any(imported.positions() for _, imported in pairs):
        return False
    with writing(target):
        try:
            for finished, imported in pairs:
                _copy(finished, imported)
        except DamagedError:
            return False
    return True


def _copy(finished: CheckpointStore, target: CheckpointStore) -> None:
    """The newest checkpoint of one store into an empty one; its manifest last, as always.

    Raises:
        DamagedError: it is incomplete or damaged.
    """
    positions = finished.positions()
    if not positions:
        raise DamagedError(f"{finished.folder} has no checkpoint")
    manifest = finished.manifest(positions[0])
    finished.verify(manifest)
    target.folder.mkdir(parents=True, exist_ok=True)
    for entry in manifest["pieces"].values():
        _link(finished.folder / entry["file"], target.folder / entry["file"])
    target.publish(positions[0], manifest["pieces"], manifest["costs"], before=None)


def _link(source: Path, target: Path) -> None:
    """A second name of a file, which nobody changes: new content always comes as a new file. Else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
