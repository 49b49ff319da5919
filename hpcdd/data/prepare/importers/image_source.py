"""What an importer gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...writing import Split
from ..image_transform import Preparation


@dataclass(frozen=True)
class ImageSource:
    """A source as an importer has read it.

    Attributes:
        splits: ``train``, ``validation`` and ``test``, as far as the source is split; only ``train`` where it isn't.
        class_names: K names; empty where the source has none.
        name: of the data set; empty for that of the source.
        source: where it comes from; empty for the source's path.
        synthetic: whether the images were computed, which is said wherever they are shown.
        preparation: how its files became images, where each is a file; by it, other files can be prepared.
        notes: what a user should know of the source, a line each: counts of files that were passed over, for one.
    """

    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    name: str = ""
    source: str = ""
    synthetic: bool = False
    preparation: Preparation | None = None
    notes: list[str] = field(default_factory=list)
