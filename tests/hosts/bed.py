"""Virtual hosts on one machine, for root: jobs over several hosts, on a wire of a chosen bandwidth.

    python -m tests.hosts.bed --hosts 2 --mbit 200 -- -n 2 python -m hpcdd bench coherent --widths 16

Each host is a network namespace with a name (UTS), an address and an interface ``eth0`` of its own; their wires end in
a switch. Files, processes and cores are the machine's. MPICH's mpirun, on a node of its own (``head``), reaches the
hosts through ``enter.sh`` in the place of ssh. As on many a real node, a host's own name resolves to 127.0.1.1, and
there is a ``docker0`` with the same address everywhere: who takes the first address that comes along reaches nobody.

All of it lies in the namespaces ``hpcdd-*`` and in /etc/netns, and is gone at the end; what a killed process has left
behind is removed by the next one.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from hpcdd.runs.lock import _started

from ..launchers import Launcher, find
from ..waiting import LIMIT

ENTER = Path(__file__).with_name("enter.sh")
FILES, SPACES = Path("/etc/netns"), Path("/run/netns")
TOOLS = ("ip", "tc", "unshare")
BURST = 8_000
"""Bytes that may leave at once after a pause: five frames, so that a short message does not pass the limit unseen."""
QUEUE = "50ms"
"""How long a frame may wait in a queue; beyond that frames are dropped."""
OWN_NAME, DECOY = "127.0.1.1", "172.17.0.1"

_numbers = itertools.count()


class VirtualHosts:
    """A context manager: hosts ``host1`` ... ``hostN`` with a switch between them.

    Args:
        count: N, 1 to 200.
        mbit: bandwidth of each host's wire, Mbit/s in each direction; None: what the machine gives.

    Raises:
        subprocess.CalledProcessError: the kernel or its user do not allow it; its stderr says why.
    """

    def __init__(self, count: int, mbit: float | None = None) -> None:
        assert 1 <= count <= 200
        self.names = [f"host{number}" for number in range(1, count + 1)]
        self._prefix = f"hpcdd-{os.getpid()}-{_started(os.getpid())}-{next(_numbers)}"
        self._mbit, self._limited = mbit, False

    def __enter__(self) -> Self:
        remove_stale()
        try:
            self._set_up()
            self.limit(self._mbit)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        remove(f"{self._prefix}-")

    def limit(self, mbit: float | None) -> None:
        """Sets every host's bandwidth, Mbit/s in each direction; None: no limit any more."""
        rule = "" if mbit is None else f"tbf rate {mbit}mbit burst {BURST} latency {QUEUE}"
        for name in self.names:
            for space, device in ((name, "eth0"), ("switch", name)):
                if rule or self._limited:
                    command = f"qdisc {'replace' if rule else 'del'} dev {device} root {rule}"
                    _run(["tc", "-n", self.space(space), *command.split()])
        self._limited = bool(rule)

    def sent(self) -> dict[str, int]:
        """Bytes that each host has put on its wire so far, headers and MPI's own messages included."""
        ports = json.loads(_run(["ip", "-n", self.space("switch"), "-s", "-j", "link"]))
        received = {port["ifname"]: port["stats64"]["rx"]["bytes"] for port in ports}
        return {name: received[name] for name in self.names}

    def launcher(self, slots: int = 1, hosts: Sequence[str] | None = None) -> Launcher:
        """Starts jobs on ``hosts`` (default: all): ``slots`` neighbours on each in turn, then again from the first."""
        named = ",".join(f"{name}:{slots}" for name in hosts or self.names)
        mpirun = find()["mpich"]
        return Launcher(
            "hosts",
            "ip",
            {**mpirun.environment, "HPCDD_BED": self._prefix, "UCX_TLS": "tcp,self"},  # never the memory that all share
            (
                *["netns", "exec", self.space("head"), mpirun.mpirun],
                *["-localhost", "head", "-launcher", "ssh", "-launcher-exec", str(ENTER), "-hosts", named],
            ),
        )

    def space(self, name: str) -> str:
        """The network namespace of a host."""
        return f"{self._prefix}-{name}"

    def _set_up(self) -> None:
        numbers = {name: number for number, name in enumerate(self.names, 1)} | {"head": 254}
        address = {name: f"10.77.0.{number}" for name, number in numbers.items()}
        hardware = {name: f"02:00:0a:4d:00:{number:02x}" for name, number in numbers.items()}
        _batch([f"netns add {self.space(name)}" for name in ("switch", *numbers)])
        switch = ["link add switch type bridge", "link set switch up"]
        for name in numbers:
            peer = f"eth0 address {hardware[name]} netns {self.space(name)}"
            switch += [f"link add {name} type veth peer name {peer}", f"link set {name} master switch up"]
        _batch(switch, self.space("switch"))
        for name in numbers:
            node = ["link set lo up", f"addr add {address[name]}/24 dev eth0", "link set eth0 up"]
            node += ["link add docker0 type bridge", f"addr add {DECOY}/16 dev docker0", "link set docker0 up"]
            others = [other for other in numbers if other != name]
            # The kernel's table of learnt neighbours is one for all namespaces, and too small for 64 hosts.
            node += [f"neigh add {address[o]} lladdr {hardware[o]} dev eth0 nud permanent" for o in others]
            _batch(node, self.space(name))
            host_lines = [f"{OWN_NAME} {name}", f"{address[name]} {name}-eth0"]
            lines = host_lines if name in self.names else [f"{address[name]} {name}"]
            folder = FILES / self.space(name)
            folder.mkdir(parents=True)
            known = ["127.0.0.1 localhost", *lines, *(f"{address[other]} {other}" for other in others), ""]
            (folder / "hosts").write_text("\n".join(known))


def missing() -> str:
    """Why there can be no virtual hosts here; empty where there can."""
    if os.geteuid() != 0:
        return "virtual hosts need root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"virtual hosts need {' and '.join(absent)} (of iproute2 and util-linux)"
    if "mpich" not in find():
        return "virtual hosts need the mpirun of MPICH"
    try:
        with VirtualHosts(1, mbit=100):
            return ""
    except subprocess.CalledProcessError as error:
        return f"this kernel lets nobody make virtual hosts: {error.stderr.strip()}"


def remove_stale() -> None:
    """Removes what processes have left behind that are gone."""
    for name in {path.name for folder in (SPACES, FILES) for path in folder.glob("hpcdd-*")}:
        owner = re.match(r"hpcdd-(\d+)-(\d+)-\d+-", name)
        if owner and _started(int(owner[1])) != int(owner[2]):
            remove(name)


def remove(prefix: str) -> None:
    """Ends all processes in the namespaces of that prefix and removes them, their interfaces, limits and files."""
    for pid in processes(prefix):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in SPACES.glob(f"{prefix}*"):
        _in_space("del", path)
    for folder in FILES.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # others use it
        FILES.rmdir()


def processes(prefix: str) -> list[int]:
    """All processes in the namespaces of that prefix."""
    return [int(pid) for space in SPACES.glob(f"{prefix}*") for pid in _in_space("pids", space).split()]


def _in_space(command: str, space: Path) -> str:
    """``ip netns COMMAND`` of a namespace; nothing where another process has removed it since it was listed."""
    try:
        return _run(["ip", "netns", command, space.name])
    except subprocess.CalledProcessError:
        if space.exists():
            raise
        return ""


def _batch(lines: Sequence[str], space: str | None = None) -> None:
    _run(["ip", *(["-n", space] if space else []), "-batch", "-"], input="\n".join(lines))


def _run(command: Sequence[str], **options: Any) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT, **options).stdout


def main() -> int:
    """Runs one command of mpirun over virtual hosts; its exit code, and on standard error what went over the wires."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hosts.bed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=2, help="number of hosts, 1 to 200 (default: 2)")
    parser.add_argument(
        "--mbit", type=float, help="bandwidth of each wire, Mbit/s in each direction (default: no limit)"
    )
    parser.add_argument("--slots", type=int, default=1, help="neighbouring ranks on one host (default: 1)")
    parser.add_argument(
        "words", nargs="+", metavar="WORD", help="behind --: what follows mpirun, such as -n 2 python ..."
    )
    arguments = parser.parse_args()
    if reason := missing():
        parser.error(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # through the end of the with block
    with VirtualHosts(arguments.hosts, arguments.mbit) as hosts:
        launcher = hosts.launcher(arguments.slots)
        command = [launcher.mpirun, *launcher.options, *arguments.words]
        code = subprocess.run(command, env={**os.environ, **launcher.environment}, check=False).returncode
        for name, size in hosts.sent().items():
            print(f"{name} sent {size:,} bytes", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
