"""Freed memory stays with the process: the next step touches no new page."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import platform, resource, sys
from hpcdd.core.heap import keep, release
if platform.libc_ver()[0] != "glibc":
    print("other")
    sys.exit()
kept = keep(1 << 29) if int(sys.argv[1]) else None
import torch
torch.set_num_threads(1)
def step():
    tensors = [torch.ones(10 << 20) for _ in range(4)]  # glibc always maps more than 32 MiB anew
    return sum(map(len, tensors))
for _ in range(15):  # until each tensor has found its place
    step()
if int(sys.argv[1]) == 2:
    release()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""


@pytest.mark.parametrize("kept", [0, 1, 2], ids=["never", "kept", "released"])
def test_page_faults_of_a_step(kept: int) -> None:
    """A step takes and frees 160 MiB: 40,960 pages of 4 KiB, or 80 large ones (and the edges of each tensor)."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(kept)], capture_output=True, text=True, check=True, timeout=600
    )
    if (printed := done.stdout.strip()) == "other":
        pytest.skip("another C library")
    assert float(printed) < 20 if kept == 1 else float(printed) > 50
