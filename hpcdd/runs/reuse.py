"""Results of a training that another run has finished, imported instead of training once more.

Two runs with the same data, network, settings and seed train the same local CNNs (or the same global CNN), bit by bit.
So the finished checkpoints of one are the other's as well: its training finds itself at its end.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifacts.evaluation_cache import EvaluationCache
from ..config.schema import together_on
from ..core.errors import DamagedError, UserError
from ..core.files import digest, writing
from ..training.checkpoints.store import CheckpointStore
from .resume import in_todays_settings
from .run_directory import RunDirectory

SHARED = {"local": "dnn", "global": "global"}
"""By phase whose result runs can share, the phase whose evaluation says that it is complete."""
_SECTIONS = {
    "local": ("seed", "data", "augmentation", "model", "decomposition", "local"),
    "global": ("seed", "data", "augmentation", "model", "baseline"),
}
_ELSEWHERE = {"data": {"file", "memory", "storage"}, "model": {"local_width"}}
"""Fields that don't decide; for those of ``data`` stand the data set's fingerprint and the order of its samples."""


def identity(phase: str, record: Mapping[str, Any]) -> str:
    """A digest of all that decides the result of a phase; where it is the same, so is the result.

    Args:
        phase: one of :data:`SHARED`.
        record: of a run, see :class:`hpcdd.runs.resume.Job`; ``device`` and ``bf16`` may be left out where they are
            not known yet.
    """
    config, content = record["config"], {}
    for section in _SECTIONS[phase]:
        value = config[section]
        out = _ELSEWHERE.get(section, set()) if (phase, section) != ("local", "model") else set()
        content[section] = {k: v for k, v in value.items() if k not in out} if isinstance(value, dict) else value
    sharing = record["replicas"] if phase == "local" else record["workers"]
    # Ranks that share batches round otherwise, or see other statistics.
    content["sharing"] = [sharing, config["shared_batches"]] if sharing > 1 else []
    if phase == "local" and together_on(config["together"], record.get("device") or "cpu"):
        content["together"] = record["workers"]  # who is trained with whom: a matter of rounding
    if config[{"global": "baseline"}.get(phase, phase)]["precision"] == "auto":
        content["bf16"] = record.get("bf16")
    facts = [record["dataset"], record["blocks"], record.get("device")]
    return digest(json.dumps([phase, content, facts], sort_keys=True).encode())[:16]


def has(phase: str, source: RunDirectory, result: str) -> bool:
    """Whether a run has a result, by an identity that was found before any work: without device and bf16."""
    offered = offers(phase, source)
    return offered is not None and result == identity(
        phase, {key: value for key, value in offered.items() if key not in ("device", "bf16")}
    )


def offers(phase: str, source: RunDirectory) -> dict[str, Any] | None:
    """The record of a run that has brought a phase to its end; None where it has not, or it can't be read."""
    try:
        record = source.record()
        if record is None or "replicas" not in record:
            return None
        record = in_todays_settings(source.path, record)
    except UserError:
        return None
    return record if SHARED[phase] in EvaluationCache(source.checkpoints, record["run"]).phases else None


def import_result(phase: str, source: RunDirectory, directory: RunDirectory, record: Mapping[str, Any]) -> bool:
    """Takes the finished checkpoints of a phase over, with what they have cost, unless the run has some of its own.

    Args:
        phase: one of :data:`SHARED`.
        source: the other run.
        directory: of this one, which holds its lock.
        record: of this one.

    Returns:
        Whether they are taken; not where the source's result is another one, or is damaged.

    Raises:
        WriteError: they can't be written.
    """
    offered, target = offers(phase, source), directory.training(phase)
    if offered is None or identity(phase, offered) != identity(phase, record):
        return False
    finished_chains = source.training(phase)
    subdomains = sorted(path.name for path in finished_chains.iterdir() if path.is_dir()) if phase == "local" else ["."]
    pairs = [
        (CheckpointStore(finished_chains / name, offered["run"]), CheckpointStore(target / name, record["run"]))
        for name in subdomains
    ]
    if any(own.positions() for _, own in pairs):
        return False
    with writing(target):
        try:
            for finished, own in pairs:
                _copy(finished, own)
        except DamagedError:
            return False
    return True


def _copy(finished: CheckpointStore, own: CheckpointStore) -> None:
    """The newest checkpoint of one chain into an empty one; its manifest last, as always.

    Raises:
        DamagedError: it is not whole.
    """
    positions = finished.positions()
    if not positions:
        raise DamagedError(f"{finished.folder} has no checkpoint")
    manifest = finished.manifest(positions[0])
    finished.verify(manifest)
    own.folder.mkdir(parents=True, exist_ok=True)
    for entry in manifest["pieces"].values():
        _link(finished.folder / entry["file"], own.folder / entry["file"])
    own.publish(positions[0], manifest["pieces"], manifest["costs"], before=None)


def _link(source: Path, target: Path) -> None:
    """A second name of a file, which nobody changes: new content always comes as a new file. Else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
