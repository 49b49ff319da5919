"""Programs that a job script finds in the place of `python`, by its variable HPCDD_VENV."""

from __future__ import annotations

import sys
from pathlib import Path

JOBS = Path(__file__).parents[1] / "jobs"
FAULTY = Path(__file__).parent / "ranks/faulty.py"


def stand_in(folder: Path, script: str) -> str:
    """A shell script for `python -m hpcdd WORDS`; it gets the words, and is not asked for ``--version``.

    Returns:
        The value of HPCDD_VENV.
    """
    path = folder / "venv/bin/python"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/bash\nshift 2\n[[ $1 != --version ]] || exit 0\n{script}\n")
    path.chmod(0o755)
    return str(path.parents[1])


def hpcdd(folder: Path, faults: dict[int, str] | None = None) -> str:
    """hpcdd itself; each of its processes adds a line with its node to the file ``nodes``.

    Args:
        folder: for the script.
        faults: by number of restarts of the job the fault in that part, as in ``faulty.py``: PHASE RANK WHAT.

    Returns:
        The value of HPCDD_VENV.
    """
    python, faults = sys.executable, faults or {}
    cases = "\n".join(f'{part}) exec "{python}" "{FAULTY}" {fault} "$@" ;;' for part, fault in faults.items())
    default = f'*) exec "{python}" -m hpcdd "$@" ;;'
    return stand_in(
        folder,
        f'echo "$SLURMD_NODENAME" >>nodes\ncase ${{SLURM_RESTART_COUNT:-0}} in\n{cases}\n{default}\nesac',
    )
