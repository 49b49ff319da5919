"""Ranks that hang are named; those that wait or work are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from hpcdd.runs.heartbeats import Watchdog

from ..waiting import wait_until

SIZE = 3
TIMEOUT = 1.0

RANK = """
import sys, time
from pathlib import Path
from hpcdd.runs.heartbeats import Watchdog
folder, rank, size, timeout = Path(sys.argv[1]), *map(int, sys.argv[2:4]), float(sys.argv[4])
with Watchdog(folder, rank, size, timeout, time.monotonic, lambda: "phase local, step 7", print):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _a_disk_that_is_never_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the machine may be, for longer than these time-outs."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def dog(
    folder: Path, rank: int, said: list[str], movement: Callable[[], object] = time.monotonic, timeout: float = TIMEOUT
) -> Watchdog:
    return Watchdog(folder, rank, SIZE, timeout, movement, lambda: f"phase local, step {rank}", said.append)


def test_ranks_that_move_or_wait_are_left_alone(tmp_path: Path) -> None:
    said: list[str] = []
    with ExitStack() as stack:
        for rank, movement in enumerate([time.monotonic, lambda: None, time.monotonic]):
            stack.enter_context(dog(tmp_path, rank, said, movement))
        time.sleep(2 * TIMEOUT)
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_has_ended_or_not_begun_is_left_alone(tmp_path: Path) -> None:
    said: list[str] = []
    with dog(tmp_path, 0, said):
        with dog(tmp_path, 1, said):
            time.sleep(TIMEOUT)
        time.sleep(2 * TIMEOUT)
    assert said == []


def test_a_main_thread_that_is_stuck_is_named_with_phase_and_step(tmp_path: Path) -> None:
    said: list[str] = []
    with dog(tmp_path, 0, said), dog(tmp_path, 1, said, lambda: 5), dog(tmp_path, 2, said):
        wait_until(lambda: said)
    lines = [line for text in said for line in text.splitlines()]
    assert lines[0].startswith("rank 1 of 3 on ")
    assert lines[0].endswith(", phase local, step 1 makes no progress (run.stall_timeout is 1 s)")


def test_stopped_processes_are_all_named_by_one(tmp_path: Path) -> None:
    said: list[str] = []
    command = [sys.executable, "-c", RANK, tmp_path]
    others = [
        subprocess.Popen([*command, str(rank), str(SIZE), "60"], stdout=subprocess.PIPE, text=True) for rank in (1, 2)
    ]
    try:
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == "up\n"
        time.sleep(0.1)
        with dog(tmp_path, 0, said, timeout=1.0):
            assert said == []
            for other in others:
                other.send_signal(signal.SIGSTOP)
            wait_until(lambda: said)
    finally:
        for other in others:
            other.kill()
            other.communicate()
    (text,) = said[:1]
    assert [line.split(" on ")[0] for line in text.splitlines()] == ["rank 1 of 3", "rank 2 of 3"]
    assert "phase local, step 7 does not respond" in text


@pytest.mark.slow
def test_a_rank_that_responds_after_a_pause_is_not_named(tmp_path: Path) -> None:
    """Suspended for a while: by the time that the watchdog looks closer it writes again."""
    said: list[str] = []
    other = subprocess.Popen(
        [sys.executable, "-c", RANK, tmp_path, "1", str(SIZE), "0.5"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        with dog(tmp_path, 0, said, timeout=4.0):  # it looks closer for 1.2 s; the other writes every 0.05 s
            other.send_signal(signal.SIGSTOP)
            wait_until((tmp_path / "stalled").exists, pause=0.01)
            other.send_signal(signal.SIGCONT)
            wait_until(lambda: said or not (tmp_path / "stalled").exists())
    finally:
        other.kill()
        other.communicate()
    assert said == []


def test_where_nothing_can_be_written_nobody_is_accused(tmp_path: Path, monkeypatch: object) -> None:
    said: list[str] = []
    with dog(tmp_path, 0, said) as one:
        (tmp_path / "rank-0001").write_text("1|0.00|host, phase local, step 1")  # never changes
        os.close(one._file)
        one._file = os.open(tmp_path / "rank-0000", os.O_RDONLY)  # as on a file system that has become read-only
        time.sleep(2 * TIMEOUT)
    assert said == []


def test_its_thread_ends(tmp_path: Path) -> None:
    with dog(tmp_path, 0, []):
        assert any(thread.name == "hpcdd-watchdog" for thread in threading.enumerate())
    assert not any(thread.name == "hpcdd-watchdog" for thread in threading.enumerate())
