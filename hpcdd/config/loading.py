"""From YAML file and command line to a :class:`hpcdd.config.schema.Config`, with every mistake reported at once.

What stands on the command line takes precedence over the file, and the file over the defaults. Each mistake is reported
with its place (file and line, or option) and, where a name is unknown, the nearest right one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..core import yaml_text
from ..core.errors import UserError
from ..core.files import expanded
from ..core.yaml_text import KeyPath
from .options import Overrides, Tree, is_section, nearest
from .renamed import current, in_current_names
from .schema import CNNTrainingSettings, CoherentSettings, Config
from .sections import is_fast

QUICKSTART = Path(__file__).parent / "quickstart.yaml"
BEFORE: Tree = {"batched": False, "coherent": {"learning_rate": 3e-3, "rate_scale": 0.25}}
"""How hpcdd behaved before a setting existed, where that is not the setting's default: nested as in a file. A setting
that is added with a default of another behaviour gets an entry here."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MOST_BYTES = 1 << 18
_WORDS = {
    "model_type": "it is a section; write its fields below it",
    "string_pattern_mismatch": "use letters, digits and . _ + -",
}
"""By pydantic's kind of mistake, what is clearer than its own words."""


@dataclass(frozen=True)
class Source:
    """What stands for the content of a configuration file.

    Attributes:
        tree: the content.
        lines: where each key stands.
        path: of the file.
    """

    tree: Tree
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    path: Path = QUICKSTART

    def where(self, key_path: KeyPath) -> str:
        """File and, where it is known, line of a key or of what stands above it."""
        line = next(
            (f":{self.lines[key_path[:n]]}" for n in range(len(key_path), 0, -1) if key_path[:n] in self.lines), ""
        )
        return f"{self.path}{line}"

    def section(self, key: str) -> Source:
        """The part of the file that a configuration stands in, in the present names of its settings."""
        below = self.tree.get(key) or {}
        lines = {path[1:]: line for path, line in self.lines.items() if path[0] == key and len(path) > 1}
        return _in_current_names(Source(below, lines, self.path))


def load(
    file: str | os.PathLike[str] | None = None, overrides: Overrides | None = None, base: Source | None = None
) -> Config:
    """Merges defaults, YAML file and command line.

    Args:
        file: the YAML file.
        overrides: what the command line sets.
        base: stands for a file where none is named; default: :func:`quick_start`.

    Raises:
        UserError: with a line for each mistake in the file and on the command line.
    """
    overrides = overrides or Overrides()
    source = read(path_of(str(file))) if file is not None else base or quick_start(overrides.tree)
    config, located_problems = _validate(merged(source.tree, overrides.tree))
    problems = [
        *overrides.problems,
        *(_describe(source, overrides.tree, key_path, text, overrides.origin) for key_path, text in located_problems),
    ]
    if problems or config is None:
        raise UserError("\n".join(problems))
    return config


def quick_start(over: Tree) -> Source:
    """The packaged quick start; for a CNN of another family without its recipe, which is tuned for the fast family.

    There, every setting of :class:`CNNTrainingSettings` except ``epochs`` takes its default.

    Args:
        over: what the command line sets.
    """
    source, model = read(QUICKSTART), over.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    if not isinstance(name, str) or is_fast(name):
        return source
    recipe = CNNTrainingSettings.model_fields.keys() - {"epochs"}
    sections = {
        section: {key: value for key, value in source.tree[section].items() if key not in recipe}
        for section in ("local", "coherent", "baseline")
    }
    return replace(source, tree={**source.tree, **sections})


def to_yaml(config: Config) -> str:
    """The configuration as YAML that runs again as it stands: all but ``output``, where results already lie."""
    content = config.model_dump(mode="json", exclude={"output"})
    return yaml_text.dump(content)


def from_yaml(text: str, source: str) -> Config:
    """The configuration that a run or a model file holds as :func:`to_yaml` wrote it; arguments as :func:`recorded`."""
    try:
        return recorded(yaml_text.load(text), source)
    except yaml_text.YAMLTextError as error:
        raise UserError(f"{source} is damaged: its configuration is not valid YAML: {error}; copy it again") from error


def recorded(tree: Any, source: str, revision: str = "another revision") -> Config:
    """A configuration that was written by an earlier job, perhaps of an earlier revision, in the settings of today.

    A setting that is missing did not exist then: it gets the value of :data:`BEFORE`, else its default.

    Args:
        tree: the configuration, nested as in a file.
        source: where it is written, for the message.
        revision: that has written it, for the message.

    Raises:
        UserError: it has a setting or a value that this revision does not know.
    """
    if isinstance(tree, dict):
        tree = merged(BEFORE, in_current_names(tree)[0])
        coherent = tree["coherent"]
        if isinstance(coherent, dict) and coherent["learning_rate"] is not None:  # rate_scale would have no effect
            tree["coherent"] = {**coherent, "rate_scale": CoherentSettings().rate_scale}
        config, problems = _validate(tree)
    else:
        config, problems = None, [((), "no mapping")]
    if config is None:
        texts = "; ".join(text for _, text in problems)
        raise UserError(
            f"{source} holds a configuration of {revision} that this revision does not know: {texts}; use it with the "
            "revision that wrote it"
        )
    return config


def unset_as_recorded(config: Config, before: Config) -> Config:
    """The configuration of a run that is resumed; pure.

    Args:
        config: what the command says. Its settings of :data:`BEFORE` that are not set there, where the default would
            say something else than when the run began, are taken from ``before``.
        before: the configuration of the run so far.
    """
    update: dict[str, Any] = {}
    for key, value in BEFORE.items():
        now, then = getattr(config, key), getattr(before, key)
        if isinstance(value, dict):
            fields = {name: getattr(then, name) for name in value.keys() - now.model_fields_set}
            update[key] = now.model_copy(update=fields)
        elif key not in config.model_fields_set:
            update[key] = then
    return config.model_copy(update=update)


def path_of(word: str) -> Path:
    """The file that a command line names, see :func:`hpcdd.core.files.expanded`.

    Raises:
        UserError: a variable in it is not set, or a home not known.
    """
    try:
        return Path(expanded(word))
    except ValueError as error:
        raise UserError(f"configuration {word!r}: {error}") from error


def read(path: Path) -> Source:
    """The content of a YAML file.

    Raises:
        UserError: it can't be read, or is no mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"configuration {path} can't be read: {reason}; name a YAML file") from error
    if content.startswith(_HDF5):
        raise UserError(f"configuration {path} is an HDF5 file; name a dataset file with --data.file {path}")
    if len(content) > _MOST_BYTES:
        raise UserError(f"configuration {path} has more than {_MOST_BYTES:,} bytes; name a YAML file")
    text = yaml_text.decoded(path, content)
    try:
        tree, lines = yaml_text.load(text), yaml_text.lines(text)
    except yaml_text.YAMLTextError as error:
        raise UserError(f"{path}{f':{error.line}' if error.line else ''}: not valid YAML: {error}") from error
    if tree is None:
        return Source({}, {}, path)
    if not isinstance(tree, dict):
        raise UserError(
            f"configuration {path} must be a mapping such as `local: {{epochs: 5}}`, not a {type(tree).__name__}"
        )
    # A section whose fields are all commented out is empty, not null.
    empty = {key for key, value in tree.items() if value is None and is_section(key)}
    return _in_current_names(Source({key: value for key, value in tree.items() if key not in empty}, lines, path))


def _in_current_names(source: Source) -> Source:
    """A file in the present names of its settings, with a warning for each former name."""
    tree, former = in_current_names(source.tree, str(source.path))
    present: dict[KeyPath, KeyPath] = {tuple(name.split(".")): tuple(current(name).split(".")) for name in former}
    return Source(tree, {present.get(path, path): line for path, line in source.lines.items()}, source.path)


def merged(tree: Tree, over: Mapping[str, Any]) -> Tree:
    """Field by field; a field that is a mapping itself (model.options) is replaced as a whole."""
    result = dict(tree)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, dict) and key in tree:
            result[key] = {**below, **value} if isinstance(below, dict) else below  # what is wrong there is reported
        else:
            result[key] = value
    return result


# -- the mistakes ------------------------------------------------------------------------------------------------------


def _validate(tree: Tree) -> tuple[Config | None, list[tuple[KeyPath, str]]]:
    """The configuration, or every mistake with its place.

    Contradictions within a section are looked for only when its fields are right; so what is wrong is taken out
    and the rest validated again, until nothing new is found.
    """
    problems: dict[KeyPath, str] = {}
    while True:
        try:
            config = Config.model_validate(tree)
            return (None if problems else config), list(problems.items())
        except ValidationError as error:
            reported = mistakes(error)
        problems |= {key_path: text for key_path, text in reported.items() if not _follows(key_path, text, problems)}
        smaller = without(tree, reported)
        if smaller == tree:
            return None, list(problems.items())
        tree = smaller


def _follows(key_path: KeyPath, text: str, problems: Collection[KeyPath]) -> bool:
    """Whether a contradiction names a field that is known to be wrong: it was found with the default in its place."""
    if len(key_path) == 2:  # between sections, whose fields are named in full
        return any(".".join(map(str, known)) in text for known in problems)
    wrong = {str(known[1]) for known in problems if len(known) == 2 and known[0] == key_path[0]}
    return bool(wrong & set(re.findall(r"\w+", text)))


def mistakes(
    error: ValidationError,
    nearest: Callable[[str], str] = nearest,
    place_of: Callable[[KeyPath], KeyPath] | None = None,
) -> dict[KeyPath, str]:
    """One text for each place: pydantic reports every member of a union on its own.

    Args:
        error: what pydantic has found.
        nearest: the hint for an unknown name.
        place_of: the part of an error's location that names a field; default: as in a :class:`Config`.
    """
    place_of = place_of or _place
    texts: dict[KeyPath, tuple[str, list[str]]] = {}
    within = {details["loc"][:depth] for details in error.errors() for depth in range(1, len(details["loc"]))}
    for details in error.errors():
        if details["type"] == "too_short" and details["loc"] in within:
            continue  # only because what is wrong in it was left out
        message = details["msg"].removeprefix("Value error, ")
        # A contradiction between sections has no place of its own; it begins with the name of a field.
        key_path = place_of(details["loc"] or tuple(message.split(" ", 1)[0].split(".")))
        name = ".".join(map(str, key_path))
        if details["type"] == "extra_forbidden":
            texts[key_path] = f"{name[:200]} is unknown{nearest(name[:200])}", []
        elif details["type"] == "missing":
            texts[key_path] = f"{name} is missing", []
        elif details["type"] == "value_error":
            texts[key_path] = message if message.startswith(name) else f"{name}.{message}", []
        else:
            index = "".join(f"[{part}]" for part in details["loc"][len(key_path) :] if isinstance(part, int))
            _, alternatives = texts.setdefault(key_path, (f"{name}{index} is {_shown(details['input'])}: ", []))
            alternatives.append(_WORDS.get(details["type"], message[0].lower() + message[1:]))
    return {
        key_path: start + ", or ".join(dict.fromkeys(alternatives)) for key_path, (start, alternatives) in texts.items()
    }


def _shown(value: Any) -> str:
    """A value as YAML has it, cut where it is long."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _place(location: KeyPath) -> KeyPath:
    """The part of an error's location that names a field; pydantic appends the members of unions and tuples."""
    return location[: 2 if is_section(location[0]) else 1]


def without(tree: Tree, places: Collection[KeyPath]) -> Tree:
    """A tree without some of its keys."""
    return {
        key: without(value, [path[1:] for path in places if path[0] == key]) if isinstance(value, dict) else value
        for key, value in tree.items()
        if (key,) not in places
    }


def _describe(source: Source, options: Tree, key_path: KeyPath, text: str, origin: str) -> str:
    # A contradiction is placed at a section; the part of it that stands on the command line is the newer one.
    section = options.get(str(key_path[0]), {})
    if key_path[0] in options and (len(key_path) == 1 or key_path[1] in section):
        return f"{origin}: {text}"
    return f"{source.where(key_path)}: {text}"
