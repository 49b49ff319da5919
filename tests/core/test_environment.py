"""Facts about this machine, checked against what really happens here."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpcdd import __version__
from hpcdd.core import environment

MIB = 2**20


def test_facts_are_plain_data_with_the_packages() -> None:
    facts = json.loads(json.dumps(environment.facts()))
    assert facts["packages"]["hpcdd"] == __version__
    assert {"torch", "mpi4py", "numpy", "h5py", "pydantic", "rich"} <= set(facts["packages"])
    assert all(version for version in facts["packages"].values())
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= facts["cores_in_affinity_mask"] <= facts["cores"]
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert facts["variables"]["OMP_NUM_THREADS"] == "1"


def test_facts_keep_other_variables_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert environment.facts()["variables"]["SLURM_JOB_ID"] == "17"
    assert "s3cret" not in json.dumps(environment.facts())


def test_the_git_revision_is_that_of_the_checkout() -> None:
    root = Path(environment.__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("hpcdd does not run from a checkout")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    assert environment.facts()["git"].removesuffix("+changes") == head.stdout.strip()


def test_available_memory_is_positive_and_not_above_the_total() -> None:
    assert 0 < environment.available_memory() <= psutil.virtual_memory().total


UNDER_A_LIMIT = """
import resource, sys
import psutil
from hpcdd.core.environment import available_memory
room = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + room,) * 2)
available = available_memory()
taken = bytearray(max(0, available - 16 * 2**20))  # it is really there
try:
    bytearray(available + 16 * 2**20)
    more = True
except MemoryError:
    more = False
print(available, more)
"""


def test_available_memory_under_a_limit_can_be_taken_and_not_more() -> None:
    def available(room: int) -> int:
        command = [sys.executable, "-c", UNDER_A_LIMIT, str(room)]
        size, more = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert more == "False"
        return int(size)

    assert available(64 * MIB) == pytest.approx(64 * MIB, abs=4 * MIB)
    assert available(256 * MIB) == pytest.approx(256 * MIB, abs=4 * MIB)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups as the kernel shows them, but elsewhere: tests may not make any.

    This process is in a/b of version 2 and in c/d of version 1's trees for memory and CPU time.
    """
    (tmp_path / "own").write_text("5:cpu,cpuacct:/c/d\n4:memory:/c/d\n3:cpuset:/\n0::/a/b\n")
    monkeypatch.setattr(environment, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(environment, "_CONTROL_GROUPS", tmp_path)
    for folder in ("a/b", "cpu/c/d", "memory/c/d"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("folder", ["a/b", "a", ""])
@pytest.mark.parametrize(
    ("limit", "current", "expected"), [("1000000", "400000", 600000), ("1000", "2000", 0), ("max", "400000", None)]
)
def test_the_least_memory_of_the_control_groups_counts(
    groups: Path, folder: str, limit: str, current: str, expected: int | None
) -> None:
    (groups / folder / "memory.max").write_text(limit + "\n")
    (groups / folder / "memory.current").write_text(current + "\n")
    (groups / folder / "memory.stat").write_text("anon 5\ninactive_file 0\nactive_file 7\n")
    available = environment.available_memory()
    assert available == expected if expected is not None else available > 10**6


@pytest.mark.parametrize("folder", ["memory/c/d", "memory/c", "memory"])
@pytest.mark.parametrize(("limit", "expected"), [("1000000", 650000), (str(2**63 - 4096), None)])
def test_control_groups_of_version_1_limit_memory_too(
    groups: Path, folder: str, limit: str, expected: int | None
) -> None:
    (groups / folder / "memory.limit_in_bytes").write_text(limit + "\n")
    (groups / folder / "memory.usage_in_bytes").write_text("400000\n")
    (groups / folder / "memory.stat").write_text("inactive_file 10000\ntotal_inactive_file 50000\n")
    available = environment.available_memory()
    assert available == expected if expected is not None else available > 10**6


def test_the_kernels_cache_counts_as_free(groups: Path) -> None:
    for name, text in (("max", "1000000"), ("current", "900000"), ("stat", "anon 5\ninactive_file 300000\n")):
        (groups / f"memory.{name}").write_text(text)
    assert environment.available_memory() == 400_000


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, math.inf),
        ({"a/cpu.max": "max 100000\n"}, math.inf),
        ({"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n", "cpu.max": "800000 100000\n"}, 4.0),
        ({"cpu/c/cpu.cfs_quota_us": "-1\n", "cpu/c/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/c/d/cpu.cfs_quota_us": "100000\n", "cpu/c/d/cpu.cfs_period_us": "50000\n"}, 2.0),
    ],
)
def test_the_least_quota_of_the_control_groups_counts(groups: Path, files: dict[str, str], quota: float) -> None:
    for name, text in files.items():
        (groups / name).write_text(text)
    assert environment.cpu_quota() == quota
    assert environment.facts()["cpu_quota"] == (None if math.isinf(quota) else quota)


def test_age_does_not_follow_the_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    startup = environment.Startup(from_now=True)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= startup.age < 3600


def test_seconds_since_launch_include_the_start_of_python() -> None:
    program = "import time; time.sleep(0.2); from hpcdd.core.environment import *; print(seconds_since_launch())"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert 0.2 <= float(done.stdout) <= time.perf_counter() - start + 0.02  # noted in hundredths
