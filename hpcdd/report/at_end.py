"""The report at the end of a run or a study."""

from __future__ import annotations

import sys
from pathlib import Path

from ..core.errors import UserError


def write(folder: Path) -> None:
    """Writes the report of a run or a study into its directory; a failure is printed and does not fail the run.

    Args:
        folder: directory of the complete run or study.
    """
    try:
        from . import reports  # fails without matplotlib; only root needs it

        reports.write([folder], folder)
    except Exception as error:
        why = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(
            f"hpcdd: warning: the report was not written ({why}); run `hpcdd report {folder}` to write it",
            file=sys.stderr,
            flush=True,
        )
