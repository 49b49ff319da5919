"""Signals while HDF5 writes: an exception in its callbacks would crash the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdd.core import interruption

PROGRAM = """
import os, signal, sys
from pathlib import Path
import numpy as np
from hpcdd.core import hdf5

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
write, calls = hdf5._Disk.write, 0

def interrupted(self, data):
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGINT)
    return write(self, data)

hdf5._Disk.write = interrupted
try:
    with hdf5.new_hdf5(Path(sys.argv[2])) as file:
        file["a"] = np.zeros(1000)
        file.create_dataset("b", data=np.zeros((100, 100)), chunks=(50, 50), compression=1)
except KeyboardInterrupt:
    print("interrupted at", calls)
"""


@pytest.mark.parametrize("call", [1, 2, 5])
def test_an_interruption_while_the_library_writes_is_heard_behind_it(call: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(call), str(tmp_path / "a.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("interrupted at")


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_point_lets_what_was_received_through_and_handlers_come_back(blocks: int) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    passed = []

    def work() -> None:
        interruption.point()
        os.kill(os.getpid(), signal.SIGINT)
        passed.append("still at work")
        interruption.point()
        passed.append("never")

    for _ in range(blocks):
        work = interruption.deferred()(work)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert passed == ["still at work"]
    interruption.point()
