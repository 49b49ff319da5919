"""Shared by all tests: a tiny data set, the MPI launchers that are there, and checks that nothing leaks."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from hpcdd.data.writing import Split, write_dataset

from . import launchers
from .waiting import Clock

# Tests that start mpirun compare runs: equal threads per rank, and Open MPI as root in a container.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.update(launchers.AS_ROOT)

pytest_plugins = ["tests.on_ranks"]

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def make_split(samples: int, *, shape: tuple[int, ...] = (1, 12, 12), classes: int = 3, seed: int = 0) -> Split:
    """Noise with stripes: class k has every (k+2)nd row bright. A small CNN learns it within an epoch or two."""
    generator = np.random.default_rng(seed)
    labels = np.arange(samples) % classes
    images = generator.integers(0, 60, (samples, *shape)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, :: label + 2] += 120
    return Split.from_array(images, labels)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset file: 300 training and 90 test images of 12 x 12 pixels in three classes."""
    path = tmp_path_factory.mktemp("data") / "tiny.h5"
    splits = {"train": make_split(300), "test": make_split(90, seed=1)}
    write_dataset(path, splits, name="tiny", class_names=["two", "three", "four"])
    return path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """``time.perf_counter`` while the test lasts."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    """No test leaves a thread, an environment variable or a log behind."""
    variables, threads = dict(os.environ), set(threading.enumerate())
    yield
    changed = {key for key in os.environ.keys() | variables.keys() if os.environ.get(key) != variables.get(key)}
    changed -= {"PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR"}  # pytest's and torch's own
    assert not changed, f"environment variables changed: {changed}"
    left = {thread.name for thread in threading.enumerate() if thread not in threads and not thread.daemon}
    assert not left, f"threads left: {left}"
    open_logs = [handler for handler in logging.getLogger("hpcdd").handlers if isinstance(handler, logging.FileHandler)]
    assert not open_logs, "a log is left open"


MARKS = {"cluster": "slurm", "opened": "browser", "ulfm_mpi": "ulfm"}
"""By fixture the marker of the tests that ask for it: what the fixture starts is not on every machine."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by their fixtures, before the marker expression chooses among them."""
    for item in items:
        for fixture in MARKS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKS[fixture])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument ``every_mpi`` runs once with each MPI that is there; all but the first are marked."""
    if "every_mpi" in metafunc.fixturenames:
        first, *others = (pytest.param(launcher, id=launcher.kind) for launcher in launchers.find().values())
        marked = [pytest.param(*other.values, id=other.id, marks=pytest.mark.every_mpi) for other in others]
        metafunc.parametrize("every_mpi", [first, *marked])


@pytest.fixture
def mpi() -> launchers.Launcher:
    """The MPI that mpi4py loads of itself, for tests to which the implementation does not matter."""
    return next(iter(launchers.find().values()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many jobs ran under mpirun, by implementation, and under Slurm."""
    counts = ", ".join(f"{kind} {count}" for kind, count in launchers.started.items()) or "none"
    terminalreporter.write_line(f"jobs started under mpirun and Slurm: {counts}")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Adds up what the workers of pytest-xdist have started."""
    launchers.started.update(getattr(node, "workeroutput", {}).get("started", {}))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a missing launcher, or a suite that never started it, is a failure and no skip."""
    if hasattr(session.config, "workeroutput"):  # a worker of pytest-xdist, which reports to the controller
        session.config.workeroutput["started"] = dict(launchers.started)
        return
    required = filter(None, os.environ.get("HPCDD_TEST_REQUIRE_MPI", "").split(","))
    missing = [kind for kind in required if not launchers.started.get(kind)]
    if missing and not session.config.option.collectonly and not launchers.is_launched():
        print(f"\nno test ran under {' and '.join(missing)}, which HPCDD_TEST_REQUIRE_MPI asks for")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
