"""What ``hpcdd study`` is asked to do: the study's runs and their configurations. Every mistake is reported at once."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..config import loading
from ..config.loading import Source
from ..config.options import Overrides, Tree
from ..config.renamed import current, in_current_names, notify
from ..config.schema import Config
from ..config.sections import Settings
from ..core.errors import UserError
from ..core.texts import hint
from ..core.yaml_text import KeyPath
from .matrix import Combination, expand
from .study_file import StudyFile, Table, Variant

_NOT_IN_STUDIES = {
    "output": "belongs to `hpcdd train`; the runs of a study lie in STUDYDIR/runs",
    "progress": "belongs to `hpcdd train`; a study prints a line when a run begins and when it ends",
    "run.survive": "belongs to `hpcdd train`; if the job of a study loses a rank, start it again and it resumes",
}
"""Fields that a study can't set for its runs, and why."""


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        combination: what distinguishes it from the other runs.
        config: its whole configuration, without ``output``.
    """

    combination: Combination
    config: Config

    @property
    def id(self) -> str:
        """Name of its folder."""
        return self.combination.id


@dataclass(frozen=True)
class StudyRequest:
    """What a job is asked to do.

    Attributes:
        description: the study, with its variant's values.
        name: of the study's file, without its ending.
        variant: its name, None without one.
        base: what all runs have in common, the command line included.
        runs: all of the study's.
        chosen: those that this job is to run.
        ranks: of a run; None: as many as it has subdomains.
        output: the study directory.
        retry: whether runs that have failed are run again.
    """

    description: StudyFile
    name: str
    variant: str | None
    base: Tree
    runs: tuple[StudyRun, ...]
    chosen: tuple[StudyRun, ...]
    ranks: int | None
    output: Path
    retry: bool


def study_request(
    file: str,
    overrides: Overrides | None = None,
    *,
    variant: str | None = None,
    output: Path | None = None,
    only: str | None = None,
    ranks: int | None = None,
    retry: bool = False,
) -> StudyRequest:
    """The request made by a study's file and the command line.

    Args:
        file: the study, a YAML file.
        overrides: fields of the configuration that all runs have.
        variant: of the study.
        output: the study directory; None: ``studies/NAME``, or ``studies/NAME-VARIANT``.
        only: a pattern of the runs' names, such as ``grid=2x2,*``; None: all are run.
        ranks: of a run, instead of the study's.
        retry: whether runs that have failed are run again.

    Raises:
        UserError: with every mistake in the study, its runs' configurations and on the command line.
    """
    path, overrides = loading.path_of(file), overrides or Overrides()
    source = loading.read(path)
    description = _describe(source)
    problems = list(overrides.problems)
    name = re.sub(r"[^\w.+-]+", "-", path.stem, flags=re.ASCII)
    if variant is not None:
        description = _varied(source, description, variant)
    base = loading.merged(_sections({"name": name, **description.config}, path), overrides.tree)
    problems += list(_misplaced(source, base, description, overrides.tree))
    try:
        combinations = expand(description.matrix)
    except ValueError as error:
        problems.append(f"{source.where(('matrix',))}: {error}")
        combinations = []
    notify(sorted({field for combination in combinations for field in combination.fields}), str(path))
    runs, more = _configured(source, base, combinations, overrides.tree)
    if problems or more:
        raise UserError("\n".join(dict.fromkeys([*problems, *more])))
    chosen = tuple(run for run in runs if only is None or fnmatch.fnmatchcase(run.id, only))
    if not chosen:
        raise UserError(f"command line: --only {only} matches no run; their names are like {runs[0].id}")
    folder = output or Path("studies") / (name if variant is None else f"{name}-{variant}")
    return StudyRequest(
        description, name, variant, base, tuple(runs), chosen, ranks or description.ranks, folder, retry
    )


def _describe(source: Source) -> StudyFile:
    tree = {key: value for key, value in source.tree.items() if not (key == "config" and value is None)}
    return _validated(tree, lambda key_path: f"{source.where(key_path)}: ")


def _validated(tree: Tree, prefix_of: Callable[[KeyPath], str]) -> StudyFile:
    try:
        return StudyFile.model_validate(tree)
    except ValidationError as error:
        mistakes = loading.mistakes(error, _nearest, _field)
        raise UserError("\n".join(f"{prefix_of(key_path)}{text}" for key_path, text in mistakes.items())) from error


def _varied(source: Source, description: StudyFile, variant: str) -> StudyFile:
    if variant not in description.variants:
        known = ", ".join(description.variants) or "none"
        close = hint(variant, description.variants, f"the study has {known}")
        raise UserError(f"command line: --variant {variant} is unknown{close}")
    chosen = description.variants[variant]
    matrix = {name: axis for name, axis in {**description.matrix, **chosen.matrix}.items() if axis is not None}
    if "seed" in matrix:
        matrix["seed"] = matrix.pop("seed")  # repeats stay next to each other
    replaced = {name: getattr(chosen, name) for name in ("title", "ranks", "expect", "table")}
    tree = {
        **description.model_dump(),
        **{name: value for name, value in replaced.items() if value is not None},
        "config": loading.merged(*(_sections(tree, source.path) for tree in (description.config, chosen.config))),
        "matrix": matrix,
    }
    return _validated(tree, lambda key_path: f"{source.where(('variants', variant, *key_path))}: variants.{variant}.")


def _misplaced(source: Source, base: Tree, description: StudyFile, overrides: Tree) -> list[str]:
    """Fields that a study has no use for, and options that every run overwrites."""
    axes = description.matrix
    of_all: set[str] = set()
    for name, axis in axes.items():
        of_all |= {name} if isinstance(axis, list) else set.intersection(*[set(fields) for fields in axis.values()])
    named = {name for axis in axes.values() if isinstance(axis, dict) for fields in axis.values() for name in fields}
    named |= {name for name, axis in axes.items() if isinstance(axis, list)}
    problems = []
    for field, why in _NOT_IN_STUDIES.items():
        section, _, key = field.rpartition(".")
        there = key in base.get(section, {}) if section else key in base
        if there or field in named:
            problems.append(f"{source.path}: {field} {why}")
    for section, value in overrides.items():
        fields = [f"{section}.{key}" for key in value] if isinstance(value, dict) else [section]
        problems += [
            f"command line: --{field.replace('_', '-')} has no effect, because the study's matrix sets it in every run"
            for field in fields
            if field in {current(name) for name in of_all}
        ]
    return problems


def _configured(
    source: Source, base: Tree, combinations: Sequence[Combination], overrides: Tree
) -> tuple[list[StudyRun], list[str]]:
    """The runs, and what is wrong with their configurations: each text once, with the runs where not all have it."""
    runs, problems = [], dict[str, list[str]]()
    lines_of_config = source.section("config").lines
    for combination in combinations:
        lines = dict(lines_of_config)
        for axis in combination.labels:
            line = source.lines.get(("matrix", axis))
            fields = combination.fields if axis not in combination.fields else [axis]
            for field in fields:
                key_path = tuple(current(field).split(".", 1))
                if line is not None and (axis == field or field not in combination.labels):
                    lines[key_path] = line
        content = Source(combination.tree(base), lines, source.path)
        left = loading.without(overrides, [tuple(current(name).split(".", 1)) for name in combination.fields])
        try:
            runs.append(StudyRun(combination, loading.load(None, Overrides(left), content)))
        except UserError as error:
            for text in str(error).splitlines():
                problems.setdefault(text, []).append(combination.id)
    return runs, [_of_runs(text, ids, len(combinations)) for text, ids in problems.items()]


def _of_runs(text: str, ids: Sequence[str], number: int) -> str:
    if len(ids) == number:
        return text
    more = f" and {len(ids) - 2} more" if len(ids) > 2 else ""
    return f"{text} (run {' and '.join(ids[:2]) if not more else ', '.join(ids[:2])}{more})"


def _sections(tree: Mapping[str, object], path: Path) -> Tree:
    """Without sections whose fields are all commented out; in the present names of settings."""
    return in_current_names({key: value for key, value in tree.items() if value is not None}, str(path))[0]


def _field(location: KeyPath) -> KeyPath:
    """The part of an error's location that names a field, of the study or of a variant, or an axis."""
    within = 2 if location[0] == "variants" else 0
    return location[: within + (2 if location[within : within + 1] in (("matrix",), ("table",)) else 1)]


def _nearest(name: str) -> str:
    names = name.split(".")
    models: list[type[Settings]] = [StudyFile, Table, Variant, Table]
    fields = models[min(len(names), 4) - 1].model_fields
    return hint(names[-1], fields, f"the fields are {', '.join(fields)}")
