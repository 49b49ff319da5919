"""JSON documents that one command writes and another one reads."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ..core.files import write_json, writing


class Document(BaseModel):
    """Base of a document and of its parts: immutable, finite numbers, and no fields except the documented ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def write_document(path: Path, document: Document) -> None:
    """Writes a document atomically; :func:`hpcdd.core.files.read_json` reads it.

    Raises:
        WriteError: it can't be written.
    """
    with writing(path):
        write_json(path, document.model_dump(mode="json"))
