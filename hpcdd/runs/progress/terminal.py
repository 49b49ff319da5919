"""Where root can draw: its own terminal, or that of the launcher behind whose pipes it runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import psutil

from ...mpi.launcher import Launch

_LAUNCHERS = frozenset(
    {"mpirun", "mpiexec", "mpiexec.hydra", "mpirun.mpich", "mpirun.openmpi", "orterun", "prterun", "srun"}
)


def find_terminal(launch: Launch, stdout: TextIO) -> TextIO | None:
    """A terminal that a live view may be drawn on, or None.

    The standard output of a launched process says nothing: it is a pipe (MPICH) or a pseudo-terminal that the
    launcher copies to wherever its own output goes (Open MPI). So the launcher's standard output counts,
    if it is a terminal in whose foreground the launcher runs. On another host than the launcher's it can't be reached.

    Args:
        launch: how this process was started.
        stdout: this process's standard output.

    Returns:
        ``stdout`` itself, or a newly opened file.
    """
    if launch.kind == "none":
        return stdout if stdout.isatty() and _in_foreground(os.getpid()) else None
    for ancestor in psutil.Process().parents():
        try:
            if _is_launcher(ancestor.cmdline()):
                target = os.readlink(f"/proc/{ancestor.pid}/fd/1")
                if target.startswith(("/dev/pts/", "/dev/tty")) and _in_foreground(ancestor.pid):
                    return open(target, "w", encoding=stdout.encoding, errors=stdout.errors)
                return None
        except (OSError, psutil.Error):  # another user's process, or one that has ended
            return None
    return None


def _is_launcher(command: Sequence[str]) -> bool:
    return any(Path(word).name in _LAUNCHERS for word in command[:2])


def _in_foreground(pid: int) -> bool:
    """Whether a process is in the foreground of its controlling terminal: proc(5), fields pgrp and tpgid."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[2] == fields[5]
