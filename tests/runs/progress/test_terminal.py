"""Which terminal root may draw on, in real processes. Behind an mpirun on a terminal: tests/ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from ...launchers import Launcher
from ...waiting import LIMIT

PROGRAM = """
import os, sys
from hpcdd.mpi.launcher import Launch, from_environment
from hpcdd.runs.progress.terminal import find_terminal
if "background" in sys.argv:
    child = os.fork()  # what a shell does for `command &`
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.setpgid(0, 0)
launch = Launch(sys.argv[1], 0, 1) if sys.argv[1] != "environment" else from_environment()
terminal = find_terminal(launch, sys.stdout)
if launch.rank == 0:
    print("own" if terminal is sys.stdout else terminal)
"""


@pytest.mark.parametrize("kind", ["none", "mpich", "openmpi", "slurm"])
def test_a_pipe_is_no_terminal(kind: str) -> None:
    command = [sys.executable, "-c", PROGRAM, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    assert done.stdout == "None\n"


def test_a_file_is_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", PROGRAM, "none"], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "None\n"


def test_behind_an_mpirun_whose_output_is_a_pipe_there_is_none(every_mpi: Launcher, tmp_path: Path) -> None:
    """Open MPI gives its processes pseudo-terminals even then; they are not to be taken for the user's."""
    done = every_mpi.run(2, ["-c", PROGRAM, "environment"], tmp_path)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def on_a_terminal(*arguments: str) -> str:
    command = ["-c", PROGRAM, *arguments]
    child = pexpect.spawn(sys.executable, command, env=os.environ, timeout=LIMIT, encoding="utf-8", dimensions=(24, 80))
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    return (child.before or "").strip()


def test_a_terminal_in_whose_foreground_the_process_runs_is_its_own() -> None:
    assert on_a_terminal("none") == "own"


def test_a_process_in_the_background_does_not_draw() -> None:
    assert on_a_terminal("none", "background") == "None"


def test_the_standard_output_of_a_launched_process_does_not_count() -> None:
    """No mpirun is among its ancestors here: it runs on another host than its launcher."""
    assert on_a_terminal("openmpi") == "None"
