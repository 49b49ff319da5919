"""The state of a training between two steps, and its parts: one for each subdomain, one for what belongs to all."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch

from ...core.errors import DamagedError
from ...core.seeding import WHOLE
from ...models.serialization import read_state, write_state

_FACTS = "facts"


class Position(NamedTuple):
    """Where a training is: complete epochs, and complete steps of the epoch after them."""

    epoch: int
    steps: int


@dataclass
class Snapshot:
    """A training between two steps.

    Attributes:
        position: where it is.
        tensors: by KIND/NAME: ``network``, ``best`` and ``average`` (parameters and buffers), ``exp_avg`` and
            the like (optimizer's), each with the parameter's name; ``stream`` with the subdomain's number (its state).
        facts: plain data (JSON): sums of the running epoch, history, seconds.
    """

    position: Position
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def part(self, subdomain: int, subdomain_of: Callable[[str], int]) -> bytes:
        """What belongs to one subdomain (or :data:`WHOLE`), as the bytes of an HDF5 file; facts stand in each part.

        Args:
            subdomain: which.
            subdomain_of: of a NAME the subdomain.
        """
        tensors = {key: t for key, t in self.tensors.items() if subdomain_of(key.partition("/")[2]) == subdomain}
        return _encode(tensors, {**self.facts, "position": list(self.position)})

    @classmethod
    def join(cls, parts: Iterable[bytes]) -> Snapshot:
        """Puts parts together; the facts are those of the first.

        Raises:
            DamagedError: not parts of a snapshot.
        """
        tensors: dict[str, torch.Tensor] = {}
        facts: dict[str, Any] = {}
        for part in parts:
            more, part_facts = _decode(part)
            tensors |= more
            facts = facts or part_facts
        return cls(Position(*facts.pop("position")), tensors, facts)


def by_number(name: str) -> int:
    """The subdomain of a NAME in a part of the DNN or of the coherent model: ``cnns.S.*``, ``*blocks.S``, or ``S``."""
    parts = name.split(".")
    for before, part in zip(["", *parts], parts, strict=False):
        if before in ("", "cnns", "blocks") and part.lstrip("-").isdecimal():
            return int(part)
    return WHOLE


def _encode(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> bytes:
    """An HDF5 file in memory, so that nothing but whole bytes goes to the disk, and errors there are ours to see."""
    name = f"part of thread {threading.get_ident()}"  # HDF5 refuses to open two files of one name at a time
    with h5py.File(name, "w", driver="core", backing_store=False) as file:
        write_state(file, tensors)
        file[_FACTS] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _decode(image: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with h5py.File(io.BytesIO(image), "r") as file:
            facts = json.loads(file[_FACTS][:].tobytes())
            tensors = read_state(file)
    except (OSError, LookupError, RuntimeError, ValueError) as error:
        raise DamagedError(str(error)) from error
    del tensors[_FACTS]
    return tensors, facts
