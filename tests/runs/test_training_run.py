"""What a script that calls hpcdd keeps: its communicators, and its time after a run."""

from __future__ import annotations

from pathlib import Path

from hpcdd.mpi import runtime
from hpcdd.runs.training_run import ranks_of

from ..launchers import Launcher

ROOT_WORKS_ON = """
import time
from hpcdd.mpi.runtime import set_finalize_timeout
from hpcdd.runs.training_run import ranks_of

with ranks_of(None) as ranks:
    set_finalize_timeout(0.1, "another rank hangs", 75)
    rank = ranks.rank
if rank == 0:
    time.sleep(1.5)
    print("root is done")
"""


def test_calls_of_one_process_leave_no_communicator_behind() -> None:
    """MPICH has 2,048 of them."""
    for _ in range(2_200):
        with ranks_of(None):
            pass


def test_a_finalize_timeout_does_not_outlast_the_run() -> None:
    before = list(runtime.FINALIZE_TIMEOUTS)
    with ranks_of(None):
        runtime.set_finalize_timeout(1.0, "another rank hangs", 75)
        assert before != runtime.FINALIZE_TIMEOUTS
    assert before == runtime.FINALIZE_TIMEOUTS


def test_ranks_without_work_wait_for_root_after_a_run(mpi: Launcher, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ROOT_WORKS_ON)
    done = mpi.run(2, ["script.py"], tmp_path)
    assert (done.returncode, done.stdout) == (0, "root is done\n"), done.stderr
