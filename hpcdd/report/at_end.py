"""The report at the end of a run or a study."""

from __future__ import annotations

import sys
from pathlib import Path

from ..core.errors import UserError


def write(folder: Path) -> None:
    """Writes the report of a run or a study into its directory; if there can't be one, they stay what they are.

    Args:
        folder: of what is complete: for want of a report it does not fail.
    """
    try:
        from . import reports  # which fails where there is no matplotlib; ranks but root don't need it

        reports.write([folder], folder)
    except Exception as error:
        why = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        print(
            f"hpcdd: warning: the report was not written ({why}); run `hpcdd report {folder}` to write it",
            file=sys.stderr,
            flush=True,
        )
