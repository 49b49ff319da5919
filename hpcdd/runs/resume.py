"""Which run a command line means: a new one, or one that is resumed, and what may have changed since."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import loading
from ..config.options import Overrides, is_section
from ..config.schema import Config
from ..core.errors import UserError
from ..core.files import expanded
from ..core.names import TRAININGS, TrainingName
from .run_directory import RunDirectory, newest

FORMAT = 1
FREE = re.compile(r"output|progress|device|data\.file|data\.memory|data\.storage|checkpoint\..*|comm\..*|run\..*")
"""Fields that may change when a run is resumed: they don't change the result. (A dataset file elsewhere must be
the same by its fingerprint. In which order MPI adds gradients is another library's choice anyway.)"""
EPOCHS: dict[str, TrainingName | None] = {
    "local.epochs": "dnn",
    "aggregation.epochs": "coherent_transfer",
    "coherent.epochs": None,
    "baseline.epochs": None,
}
"""Fields that may increase, with the phase that builds on the result of theirs and must not have begun."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        config: with ``output`` set where a run is resumed.
        print_only: whether the configuration is only to be printed.
        record: of the run that is resumed, None for a new one: ``run`` (its identity), ``config``, ``dataset``
            (fingerprint), ``blocks`` (of the order in which samples are visited, see
            :func:`hpcdd.data.sample_order.order_of`), ``device`` (kind), ``replicas`` and ``workers`` (ranks of the
            last job that share batches), ``bf16`` (whether ``precision: auto`` means it), ``reused`` (by
            phase the run directory whose result was imported),
            ``complete``.
        study: whether the run is one of a study: it prints nothing, and a failure ends this run only.
        sources: by phase the directory of a run whose result is imported where it is the same, see
            :mod:`hpcdd.runs.reuse`.
        profile: whether every rank leaves traces of some steps, see :mod:`hpcdd.runs.profiling`.
    """

    config: Config
    print_only: bool
    record: dict[str, Any] | None = None
    study: bool = False
    sources: Mapping[TrainingName, Path] = field(default_factory=dict)
    profile: bool = False

    def remedy(self, folder: Path) -> str:
        """What to do where it has ended too early, in words; ``folder`` is its run directory."""
        return "resume it with " + ("the same command" if self.study else f"`hpcdd train --resume --output {folder}`")

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.record is not None and self.record["complete"] and not increased(self.record, self.config)


@dataclass(frozen=True)
class TrainRequest:
    """What ``hpcdd train`` is asked to do.

    Attributes:
        file: of the configuration; None for that of the run that is resumed, or for the packaged quick-start.
        overrides: fields of the command line.
        resume: whether a run has to be there that is resumed.
        profile, print_only: see :class:`Job`.
    """

    file: str | None = None
    overrides: Overrides = field(default_factory=Overrides)
    resume: bool = False
    profile: bool = False
    print_only: bool = False


def resolve(request: TrainRequest) -> Job:
    """What is to be done; to be called on root.

    Raises:
        UserError: with every mistake; also where a run is there that can't be resumed so.
    """
    wanted, named, options = request.resume, request.file is not None, request.overrides.tree
    if named:
        config = loading.load(request.file, request.overrides)
        output, name = config.output, config.name
    else:
        output, name = options.get("output"), options.get("name", "quickstart")
        if output is not None:
            try:
                output = expanded(output)
            except ValueError as error:
                raise UserError(f"command line: output is {output!r}: {error}") from error
    folder = newest(name) if output is None and wanted else Path(output) if output else None
    if wanted and folder is None:
        raise UserError(f"--resume: there is no run runs/{name}-K here; name the run's folder with --output")
    run = None if folder is None else RunDirectory(folder)
    condition = "empty" if run is None else run.condition()
    record = run.record() if run is not None and condition in ("unfinished", "complete") else None
    if folder is not None and record is not None:
        record = in_todays_settings(folder, record)
    if not named:
        config = loading.load(None, request.overrides, None if record is None else loading.Source(record["config"]))
    if run is None or request.print_only:
        return Job(config, request.print_only, profile=request.profile)
    if condition == "empty" and wanted:
        raise UserError(f"--resume: {folder} holds no run")
    if condition == "begun" and not named and wanted:
        raise UserError(f"--resume: nothing is recorded in {folder} yet; name the configuration it was started with")
    return replace(_job(config, run, condition, record, wanted=wanted), profile=request.profile)


def job_of(config: Config) -> Job:
    """What ``hpcdd train`` does with a configuration: a new run, or the one in ``output`` is resumed; on one rank.

    Raises:
        UserError: ``output`` holds something else, or a run that can't be resumed so.
    """
    if config.output is None:
        return Job(config, print_only=False)
    run = RunDirectory(Path(config.output))
    condition = run.condition()
    record = run.record() if condition in ("unfinished", "complete") else None
    if record is not None:
        record = in_todays_settings(run.path, record)
    return _job(config, run, condition, record, wanted=False)


def _job(config: Config, run: RunDirectory, condition: str, record: dict[str, Any] | None, *, wanted: bool) -> Job:
    """Args as in :func:`resolve`: ``wanted`` says whether a run is to be resumed even if its epochs have increased."""
    folder = run.path
    if condition == "foreign":
        raise UserError(
            f"output is {folder}, a folder that is not empty and holds no run; it is not overwritten, so name another "
            "folder"
        )
    config = config.model_copy(update={"output": str(folder)})
    if record is not None:
        config = resumed(record, config, run)
        if condition == "complete" and not wanted and (more := increased(record, config)):
            raise UserError(
                f"output is {folder}, which holds a complete run of fewer {', '.join(more)}; resume it with --resume, "
                "or name another folder"
            )
    return Job(config, print_only=False, record=record)


def in_todays_settings(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run that an earlier revision may have begun, as this one would have written it.

    Raises:
        UserError: it is of another format, or its configuration has settings that this revision does not know.
    """
    if record["format"] != FORMAT:
        raise UserError(
            f"{folder} is a run of format {record['format']} (hpcdd {record['hpcdd']}); this hpcdd resumes format "
            f"{FORMAT}"
        )
    config = loading.recorded(record["config"], str(folder), f"hpcdd {record['hpcdd']}")
    # Where one rank had to stream, all visited the samples by blocks, at least 16 in a window; else all at random.
    blocks = record["blocks"] if "blocks" in record else 16 * record["by_blocks"]
    return {**record, "blocks": blocks, "config": config.model_dump(mode="json", exclude={"output"})}


def resumed(record: Mapping[str, Any], config: Config, run: RunDirectory) -> Config:
    """The configuration with which a run is resumed.

    Args:
        record: of the run, from :func:`in_todays_settings`.
        config: that of now.
        run: its folder.

    Raises:
        UserError: with every setting that has changed and may not.
    """
    before = Config.model_validate(record["config"])
    config = loading.unset_as_recorded(config, before)
    problems = list(differences(before, config, run))
    if problems:
        raise UserError("\n".join(problems))
    return config


def reload(job: Job, path: Path | None) -> Job:
    """The same job, with the record that its run has by now; to be called on root.

    Args:
        job: what was to be done.
        path: the run directory, None where no rank has opened one.
    """
    if path is None:
        return job
    return replace(job, config=job.config.model_copy(update={"output": str(path)}), record=RunDirectory(path).record())


def record_of(config: Config, run: str, **facts: Any) -> dict[str, Any]:
    """The record of a run, see :class:`Job`.

    Args:
        config: as it was resolved.
        run: identity.
        facts: ``dataset``, ``blocks``, ``device``, ``replicas``, ``workers``, ``bf16``, ``reused``.
    """
    content = config.model_dump(mode="json", exclude={"output"})
    return {"format": FORMAT, "hpcdd": __version__, "run": run, "config": content, **facts, "complete": False}


def check_facts(job: Job, facts: Mapping[str, Any]) -> None:
    """Refuses to resume with another data set, or on another kind of device, whose random numbers are others.

    Raises:
        UserError: naming what was there and what is.
    """
    if job.record is None:
        return
    was = {name: job.record[name] for name in ("dataset", "device")}
    if was["dataset"] != facts["dataset"]:
        raise UserError(
            f"data.file: {job.config.data.file} is not the data set with which {job.config.output} was started "
            f"(fingerprint {facts['dataset'][:12]}, not {was['dataset'][:12]})"
        )
    if was["device"] != facts["device"]:
        raise UserError(
            f"{job.config.output} was started on {was['device']}, but this job would resume it on {facts['device']}; "
            f"use --device {was['device']}"
        )


def increased(record: Mapping[str, Any], config: Config) -> dict[str, int]:
    """The numbers of epochs that are greater than those of the run so far, by field."""
    before, now = _flat(record["config"]), _flat(config.model_dump(mode="json"))
    return {name: now[name] for name in EPOCHS if now[name] > before[name]}


def trained_further(record: Mapping[str, Any], config: Config) -> list[TrainingName]:
    """The phases whose number of epochs has increased."""
    fields = increased(record, config)
    return [phase for phase, training in TRAININGS.items() if f"{training.section}.epochs" in fields]


def differences(before: Config, config: Config, run: RunDirectory) -> Iterator[str]:
    """What keeps a run from being resumed.

    Args:
        before: the configuration of the run so far.
        config: that of now.
        run: its folder.
    """
    old, new = (_flat(settings.model_dump(mode="json", exclude={"output"})) for settings in (before, config))
    named = _flat(config.model_dump(mode="json", exclude_unset=True))
    for name, was in sorted(old.items()):
        now = new[name]
        if was == now or FREE.fullmatch(name):
            continue
        changed = f"{name} was {was!r} in {run.path} and is {now!r} now{'' if name in named else ', its default'}"
        if name not in EPOCHS:
            yield f"{changed}; resume a run with the settings it was started with, or name another --output"
        elif now < was:
            yield f"{changed}; it can only be increased"
        elif (builds := EPOCHS[name]) and run.training(builds).exists():
            yield f"{changed}; it can only be increased until phase {builds} has started, which builds on its result"


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """By full name; sections are one level deep."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if is_section(key):
            flat |= {f"{key}.{name}": below for name, below in value.items()}
        else:
            flat[key] = value
    return flat
