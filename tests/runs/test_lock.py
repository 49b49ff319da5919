"""The lock of a run directory: one holder, and no memory of the dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hpcdd.core.errors import UserError, WriteError
from hpcdd.runs.lock import STALE_BEATS, Lock

from ..waiting import LIMIT, wait_until

HOLDER = """
import sys, time
from pathlib import Path
from hpcdd.runs.lock import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def rewrite(path: Path, **fields: Any) -> None:
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps(content).ljust(512))


def left_behind(path: Path, **fields: Any) -> None:
    """A lock as another job has it, here and now or elsewhere."""
    lock = Lock(path)
    lock.acquire()
    content = path.read_text()
    lock.release()
    path.write_text(content)
    rewrite(path, token="other", **fields)


def test_it_is_there_while_it_is_held_and_gone_then(path: Path) -> None:
    lock = Lock(path)
    assert lock.acquire() is None
    with pytest.raises(UserError, match=rf"in use by a job on host .* \(process {os.getpid()}\); wait for it to end"):
        Lock(path).acquire()
    lock.release()
    assert not path.exists()
    second = Lock(path)
    assert second.acquire() is None
    second.release()


def test_a_killed_holder_holds_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid}"):
        Lock(path).acquire()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    lock = Lock(path)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits"))
    assert f"process {holder.pid}" in str(lock.acquire())
    lock.release()


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(path: Path) -> None:
    left_behind(path, pid=os.getpid(), started=1.0)
    lock = Lock(path)
    assert lock.acquire() is not None
    lock.release()


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"space": "another machine of this name"}])
def test_another_hosts_lock_counts_while_its_number_moves(path: Path, elsewhere: dict[str, str]) -> None:
    left_behind(path, **elsewhere)
    stop, beat = threading.Event(), 0.2

    def move() -> None:
        number = 0
        while not stop.wait(0.02):
            number += 1
            rewrite(path, number=number)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(move)
        try:
            with pytest.raises(UserError, match="is in use"):
                Lock(path, beat=beat).acquire()
        finally:
            stop.set()
    lock = Lock(path, beat=beat)
    start = time.monotonic()
    assert lock.acquire() is not None  # it stands still
    assert time.monotonic() - start > STALE_BEATS * beat
    lock.release()


def test_the_holder_moves_its_number(path: Path) -> None:
    lock = Lock(path, beat=0.05)
    lock.acquire()
    first = json.loads(path.read_text())["number"]
    wait_until(lambda: json.loads(path.read_text())["number"] >= first + 2)
    lock.release()


def test_a_holder_that_was_suspended_and_lost_it_is_notified(path: Path) -> None:
    notified = threading.Event()
    lock = Lock(path, beat=0.05, lost=notified.set)
    lock.acquire()
    path.unlink()
    left_behind(path)
    assert notified.wait(LIMIT)
    content = path.read_text()
    lock.release()
    assert path.read_text() == content  # it is the other one's


def test_a_dead_process_that_is_not_yet_reaped_holds_nothing(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    wait_until(lambda: Path(f"/proc/{child.pid}/stat").read_text().split()[2] == "Z")
    left_behind(path, pid=child.pid)
    lock = Lock(path)
    assert lock.acquire() is not None
    lock.release()
    child.wait()


def test_of_many_that_come_at_once_one_gets_it(path: Path) -> None:
    left_behind(path, pid=999_999_999)
    locks = [Lock(path) for _ in range(16)]
    barrier = threading.Barrier(16)

    def take(lock: Lock) -> bool:
        barrier.wait()
        try:
            lock.acquire()
        except UserError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(take, locks))
    assert sum(taken) == 1
    winner = locks[taken.index(True)]
    winner.release()
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_can_not_be_written_is_reported(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="can't be written: No such file"):
        Lock(tmp_path / "nowhere" / "lock").acquire()


def test_a_lock_without_content_is_waited_for(path: Path) -> None:
    path.touch()
    lock = Lock(path, beat=0.05)
    assert lock.acquire() == "an unknown job"
    lock.release()
