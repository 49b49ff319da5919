"""The tests that are marked with rank counts run under the first MPI; here, under every other one that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..launchers import find

HERE = Path(__file__).parent


@pytest.mark.every_mpi
@pytest.mark.parametrize("kind", list(find())[1:])
def test_marked_tests(kind: str, tmp_path: Path) -> None:
    words = ["-m", "pytest", "-q", "-m", "parallel[3]", "-p", "no:cacheprovider", f"--rootdir={HERE.parents[1]}"]
    done = find()[kind].run(3, [*words, HERE / "test_comm.py", HERE / "test_phases.py"], tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("2 passed") == 3
