"""The configuration that a command line of ``hpcdd train`` means."""

from __future__ import annotations

from collections.abc import Sequence

from hpcdd.cli import train
from hpcdd.config import loading
from hpcdd.config.schema import Config


def parse(argv: Sequence[str]) -> tuple[Config, bool]:
    """The configuration, and whether it is only to be printed."""
    request = train.request(argv)
    return loading.load(request.file, request.overrides), request.print_only
