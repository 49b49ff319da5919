"""Tests of what ranks do together: ``@pytest.mark.ranks(3, 1, 2)`` on a function with the argument ``comm``.

Such a test runs on each of these numbers of ranks, and on the first of them under every further MPI. To start ranks
takes longer than most of these tests: one mpirun runs all of a file that are for one MPI and one number of ranks, in a
pytest of its own on each rank; what comes of it is the outcome of each test here. All numbers but the first are slow.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hpcdd.mpi import communicator
from hpcdd.mpi.communicator import Comm

from . import launchers

_JOB, _FOLDER = "HPCDD_TEST_JOB", "HPCDD_TEST_FOLDER"
"""Environment variables of the ranks: which case they are, and where they write what comes of their tests."""

Outcomes = dict[str, list[str]]
"""By the id of a test what each rank says of it, empty where it has passed."""

_outcomes: dict[tuple[Path, str], Outcomes] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One case for each number of ranks and each MPI; on a rank that of its job."""
    if (marker := metafunc.definition.get_closest_marker("ranks")) is None:
        return
    if _JOB in os.environ:
        cases = [pytest.param(None, id=os.environ[_JOB])]
    else:
        first, *others = launchers.find().values()
        number, *more = marker.args
        cases = [_case(first, number, str(number))]
        cases += [_case(first, n, str(n), pytest.mark.slow) for n in more]
        cases += [_case(other, number, f"{number}-{other.kind}", pytest.mark.every_mpi) for other in others]
    metafunc.parametrize("comm", cases, indirect=True)


def _case(launcher: launchers.Launcher, ranks: int, name: str, *marks: pytest.MarkDecorator) -> Any:
    return pytest.param((launcher, ranks, name), id=name, marks=marks)


@pytest.fixture
def comm() -> Comm | None:
    """On a rank the communicator of all ranks; the test itself runs nowhere else."""
    return communicator.world() if _JOB in os.environ else None


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """In the place of the test's own function: what its ranks say."""
    if pyfuncitem.get_closest_marker("ranks") is None or _JOB in os.environ:
        return None
    case = launcher, ranks, name = pyfuncitem.callspec.params["comm"]
    key = (pyfuncitem.path, name)
    if key not in _outcomes:
        tests = [item.nodeid for item in pyfuncitem.session.items if item.path == key[0] and _case_of(item) == case]
        _outcomes[key] = _run(launcher, ranks, name, tests, pyfuncitem.config.rootpath)
    said = _outcomes[key].get(pyfuncitem.nodeid, [])
    if any(said):
        pytest.fail("\n".join(filter(None, said)), pytrace=False)
    if len(said) < ranks:
        pytest.fail("\n".join([f"{len(said)} of {ranks} ranks have run it", *_outcomes[key][""]]), pytrace=False)
    return True


def _case_of(item: pytest.Item) -> tuple[launchers.Launcher, int, str] | None:
    """MPI, number of ranks and name of a test's case; None for tests without ranks."""
    return item.callspec.params["comm"] if item.get_closest_marker("ranks") else None  # type: ignore[attr-defined]


def _run(launcher: launchers.Launcher, ranks: int, case: str, tests: list[str], root: Path) -> Outcomes:
    """Runs tests on ranks; under the id "" stands what the job has printed."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", f"--rootdir={root}", *tests]
        variables = {_JOB: case, _FOLDER: folder, "PYTEST_DEBUG_TEMPROOT": folder}
        done = launcher.run(ranks, arguments, root, **variables)
        outcomes: Outcomes = {"": [done.stdout, done.stderr]}
        for path in sorted(Path(folder).glob("*.jsonl")):
            for test, text in map(json.loads, path.read_text().splitlines()):
                outcomes.setdefault(test, []).append(text)
        return outcomes


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """On a rank: notes what has come of a test. Behind a failure the ranks would wait for one another for ever."""
    if _JOB not in os.environ or not (report.failed or (report.passed and report.when == "call")):
        return
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.rank
    text = f"rank {rank}:\n{report.longreprtext}" if report.failed else ""
    with (Path(os.environ[_FOLDER]) / f"{rank}.jsonl").open("a") as file:
        file.write(json.dumps([report.nodeid, text]) + "\n")
    if report.failed:
        MPI.COMM_WORLD.Abort(1)
