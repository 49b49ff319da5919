"""Jobs over two and four hosts: who is where, and what one host's signal, death and lock do to others."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcdd.runs.lock import _started

from ..launchers import Launcher
from ..ranks.test_resume import FAULTY, check_same
from ..ranks.test_resume import config as config  # noqa: PLC0414 - a fixture
from ..waiting import LIMIT, wait_until
from .bed import FILES, SPACES, VirtualHosts, missing, processes

pytestmark = pytest.mark.hosts

PLACES, SUMS = (Path(__file__).with_name(name) for name in ("places.py", "sums.py"))
TWO = ("host1", "host2")


@pytest.fixture(scope="module")
def hosts() -> Iterator[VirtualHosts]:
    if reason := missing():
        pytest.skip(reason)
    with VirtualHosts(4) as bed:
        yield bed


@pytest.fixture(scope="module")
def on_one_host(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of the same training by one process, without mpirun."""
    folder = tmp_path_factory.mktemp("on-one-host")
    command = [sys.executable, "-m", "hpcdd", "train", config, "--output", "run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run"


# -- the bed itself ----------------------------------------------------------------------------------------------------


def places(mpi: Launcher, folder: Path, ranks: int, numbers: int = 1, **variables: str) -> dict[str, Any]:
    done = mpi.run(ranks, [PLACES, "out.json", "4", str(numbers)], folder, **variables)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return content


def test_messages_between_hosts_take_the_wire_at_its_bandwidth(hosts: VirtualHosts, tmp_path: Path) -> None:
    size = 1 << 20
    before = hosts.sent()
    hosts.limit(1)  # so slow that no other work of the machine is
    try:
        slow = places(hosts.launcher(hosts=TWO), tmp_path, 2, size // 8)["seconds"]
    finally:
        hosts.limit(None)
    between = hosts.sent()
    fast = places(hosts.launcher(hosts=TWO), tmp_path, 2, size // 8)["seconds"]
    after = hosts.sent()
    places(hosts.launcher(slots=2), tmp_path, 2, size // 8)
    assert slow >= 0.95 * 8 * size / 1e6  # two ranks exchange the whole message, or two halves of it
    assert fast < slow / 2
    for name in TWO:
        assert between[name] - before[name] > 3 * size
        assert after[name] - between[name] > 3 * size
    assert hosts.sent()["host1"] - after["host1"] < size / 4, "within a host nothing takes the wire"


@pytest.mark.parametrize("count", [4, 16])
def test_what_a_step_sends_is_less_than_twice_its_message(count: int, tmp_path: Path) -> None:
    """On the wire, headers included, by each of 4 and of 16 hosts."""
    if reason := missing():
        pytest.skip(reason)
    numbers, times = 128 * 64 + 1, 100
    with VirtualHosts(count) as many:
        done = many.launcher().run(count, [SUMS, str(numbers), str(times)], tmp_path)
        assert done.returncode == 0, done.stderr
        for size in many.sent().values():
            assert 1 < size / (8 * numbers * times) < 2.1


def test_what_a_killed_bed_leaves_behind_is_removed(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    command = [sys.executable, "-m", "tests.hosts.bed", "--mbit", "100", "--", "-n", "2", "sleep", "600"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    spaces = f"hpcdd-{process.pid}-"
    wait_until(lambda: len(_running(spaces, "sleep")) == 2)
    sleeping = _running(spaces, "sleep")
    process.kill()
    process.wait()
    assert list(FILES.glob(f"{spaces}*"))
    with VirtualHosts(1):
        assert not list(FILES.glob(f"{spaces}*"))
        assert not list(SPACES.glob(f"{spaces}*"))
    assert not any(_started(pid) for pid in sleeping)


def _running(spaces: str, program: str) -> list[int]:
    """The processes of a program in the namespaces of that prefix."""
    pids = []
    for pid in processes(spaces):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            first = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
            pids += [pid] if Path(first.decode()).name == program else []
    return pids


# -- who is where ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "count", "where"),
    [
        (2, 2, [("host1", 0), ("host1", 1), ("host2", 0), ("host2", 1)]),
        (1, 2, [("host1", 0), ("host2", 0), ("host1", 1), ("host2", 1)]),
        (1, 4, [("host1", 0), ("host2", 0), ("host3", 0), ("host4", 0)]),
    ],
    ids=["two hosts, in blocks", "two hosts, in turn", "four hosts"],
)
def test_devices_and_threads_by_the_place_on_the_host(
    hosts: VirtualHosts, tmp_path: Path, slots: int, count: int, where: list[tuple[str, int]]
) -> None:
    report = places(hosts.launcher(slots, hosts.names[:count]), tmp_path, 4, OMP_NUM_THREADS="")
    threads = max(1, len(os.sched_getaffinity(0)) * count // 4)
    for placement, (host, gpu) in zip(report["places"], where, strict=True):
        assert placement["host"] == host
        assert (placement["device"], placement["device_id"]) == (f"cuda:{gpu}", f"{host}-gpu{gpu}")
        assert placement["threads"] == threads
    assert report["address"] == "10.77.0.1"
    assert report["interfaces"] == ["eth0"] * 4
    others = ", ".join(sorted({host for host, _ in where[1:]} - {"host1"}))
    assert f"to root's host, host1 (172.17.0.1); {others} can reach none of these addresses" in report["refused"]


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_stopped_on_two_hosts_ends_on_four_as_on_one(
    hosts: VirtualHosts, config: Path, on_one_host: Path, tmp_path: Path
) -> None:
    train = ["train", config, "--progress", "off", "--output", "run"]
    # Ranks 0 and 2 are on host1, 1 on host2: it alone is asked to stop.
    stopped = hosts.launcher(hosts=TWO).run(3, [FAULTY, "coherent", "1", "SIGUSR1@10", *train], tmp_path)
    assert stopped.returncode == 75, stopped.stderr
    assert stopped.stderr.count("hpcdd: asked to stop by SIGUSR1 in phase coherent") == 1
    assert {(tmp_path / f"steps-{rank}").read_text() for rank in range(3)} == {"10"}
    before = hosts.sent()
    done = hosts.launcher().hpcdd(4, train, tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(size > before[name] for name, size in hosts.sent().items())
    check_same(tmp_path / "run", on_one_host)
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (results["ranks"], results["hosts"]) == (4, 4)
    environment = json.loads((tmp_path / "run/environment.json").read_text())
    assert [placement["host"] for placement in environment["places"]] == hosts.names
    for rank, jobs in enumerate([("host1", "host1"), ("host2", "host2"), ("host1", "host3"), ("host4",)]):
        log = (tmp_path / f"run/logs/rank-{rank:04d}.log").read_text()
        assert [line.split("host='")[1].split("'")[0] for line in log.splitlines() if "host='" in line] == list(jobs)


def test_the_lock_of_a_job_on_another_host_and_the_end_of_its_ranks(
    hosts: VirtualHosts, config: Path, tmp_path: Path
) -> None:
    train = ["train", config, "--output", "run", "--local.epochs", "100000"]
    first = hosts.launcher(hosts=TWO).start(2, ["-m", "hpcdd", *train], tmp_path)
    try:
        assert first.stdout is not None
        assert any("epoch  1/" in line for line in first.stdout)
        second = hosts.launcher(hosts=["host3"]).hpcdd(1, train, tmp_path)
        assert second.returncode == 2
        assert second.stderr.count("run is in use by a job on host host1 (process ") == 1
        (rank,) = _running(hosts.space("host2"), Path(sys.executable).name)
        os.kill(rank, signal.SIGKILL)
        first.communicate(timeout=LIMIT)
    finally:
        first.kill()
    assert first.returncode not in (0, 75)


def test_bench_coherent_over_two_hosts(hosts: VirtualHosts, config: Path, tmp_path: Path) -> None:
    arguments = ["bench", "coherent", config, "--widths", "4", "--rounds", "1", "--steps", "2"]
    done = hosts.launcher(hosts=TWO).hpcdd(2, arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 ranks on 2 hosts, cpu, 1 thread each; 1 round; gloo over eth0 (root: 10.77.0.1)" in done.stdout
    assert "DDP (gloo)" in done.stdout
