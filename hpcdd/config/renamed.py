"""Settings that had another name: files, options and records that use the old one keep working."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

RENAMED = {
    "augmentation.mirror": "augmentation.flip",
    "augmentation.shift": "augmentation.translate",
    "together": "batched",
}
"""By the former full name of a setting its present one; both in the same section."""


def current(name: str) -> str:
    """The present name of a setting."""
    return RENAMED.get(name, name)


def in_current_names(tree: dict[str, Any], where: str = "") -> tuple[dict[str, Any], list[str]]:
    """A configuration, nested as in a file, with the present names of its settings; and the former names in it.

    A former name stays where the present one is given as well, so that it is reported as unknown.

    Args:
        tree: the configuration.
        where: it stands, for :func:`notify`; empty: without a warning.
    """
    result, former = dict(tree), []
    for old, new in RENAMED.items():
        section, _, old_key = old.rpartition(".")
        new_key = new.rpartition(".")[2]
        settings = result.get(section) if section else result
        if not isinstance(settings, dict) or old_key not in settings or new_key in settings:
            continue
        renamed = {new_key if key == old_key else key: value for key, value in settings.items()}
        result = {**result, section: renamed} if section else renamed
        former.append(old)
    if where:
        notify(former, where)
    return result, former


def notify(names: Iterable[str], where: str) -> None:
    """Warns of each former name in ``where``; by default Python shows the same warning once."""
    for name in names:
        if name in RENAMED:
            text = f"{where}: {name} is now {RENAMED[name]}; the former name still works"
            warnings.warn(text, FutureWarning, stacklevel=1)
