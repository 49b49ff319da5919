"""A Slurm of two nodes on this machine, below a temporary folder: munged, slurmctld and two slurmd."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..launchers import started
from ..waiting import LIMIT

NODES = ("n1", "n2")
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for cred_expire + 1 seconds; five is the least that Slurm takes.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# PMIx makes folders there, which two nodes on one host must not share.
TmpFS={folder}/%n
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=pmi2
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
# A test may ask long after the end of a job.
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


def missing() -> str:
    """Why Slurm can't be started here; empty if it can."""
    absent = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name, path=_path()) is None]
    if absent:
        return f"there is no {', '.join(absent)}; `apt-get install slurm-wlm munge` brings them"
    return "" if os.geteuid() == 0 else "only root can start Slurm's daemons"


@dataclass(frozen=True)
class Cluster:
    """A running Slurm.

    Attributes:
        environment: with which Slurm's commands find it.
    """

    environment: dict[str, str]

    def call(self, *command: str | Path, cwd: Path | None = None, **variables: str) -> str:
        """Calls one of Slurm's commands; its output."""
        done = subprocess.run(
            [str(argument) for argument in command],
            cwd=cwd,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, cwd: Path, *arguments: str | Path, **variables: str) -> str:
        """``sbatch ARGUMENTS`` in the folder ``cwd``; the number of the job."""
        started["slurm"] += 1
        return self.call("sbatch", "--parsable", *arguments, cwd=cwd, **variables).strip()

    def about(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job: JobState, ExitCode, Restarts, Dependency and so on."""
        pairs = (word.partition("=") for word in self.call("scontrol", "-o", "show", "job", job).split())
        return {name: value for name, _, value in pairs}

    def exit_code(self, job: str, timeout: float = LIMIT) -> int:
        """Waits for the end of a job; the exit code of its script, or as in a shell 128 + the signal that ended it."""
        self.wait(lambda: self.about(job)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), timeout)
        code, signal = map(int, self.about(job)["ExitCode"].split(":"))
        return 128 + signal if signal else code

    def wait(self, until: Callable[[], bool], timeout: float = LIMIT) -> None:
        """Returns once the condition holds; fails after ``timeout`` seconds, with what Slurm and its daemons say."""
        end = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < end, f"not within {timeout} s\n{self.state()}"
            time.sleep(0.1)

    def state(self) -> str:
        """All jobs and all nodes, and the ends of the jobs' and the daemons' logs."""
        jobs, nodes = (self.call("scontrol", "show", kind) for kind in ("jobs", "nodes"))
        logs = {Path(path) for path in re.findall(r"StdOut=(\S+)", jobs)}
        logs.update(Path(self.environment["SLURM_CONF"]).parent.glob("*.log"))
        return "\n".join([jobs, nodes, *(f"{log}\n{log.read_text()[-4000:]}" for log in sorted(logs) if log.exists())])


@contextmanager
def running() -> Iterator[Cluster]:
    """Starts the daemons and ends them, with all jobs that are left."""
    with ExitStack() as stack:
        # Not below pytest's folders: a socket's path has at most 107 characters.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        (folder / "slurm.conf").write_text(
            _CONFIGURATION.format(folder=folder, host=socket.gethostname().partition(".")[0], ports=_free_ports(3))
        )
        # Files that are there on any machine: nothing is sent to them, they are only counted.
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))},
            "PATH": _path(),
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        cluster = Cluster(environment)
        munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munge.seed"}
        _daemon(
            stack,
            ["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in munge.items())],
            environment,
            folder / "munged.log",
        )
        cluster.wait((folder / "munge.socket").exists)
        _daemon(stack, ["slurmctld", "-D"], environment, folder / "slurmctld.log")
        for node in NODES:
            (folder / node).mkdir()
            _daemon(stack, ["slurmd", "-D", "-N", node], environment, folder / f"{node}.log")
        stack.callback(_end_jobs, cluster)
        cluster.wait(lambda: _idle(environment) == len(NODES))
        yield cluster


def _idle(environment: dict[str, str]) -> int:
    command = ["sinfo", "-h", "-N", "-p", "main", "-t", "idle", "-o", "%N"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    return len(done.stdout.split())


def _end_jobs(cluster: Cluster) -> None:
    cluster.call("scancel", "--user=root", "--signal=KILL", "--full")
    cluster.call("scancel", "--user=root")
    cluster.wait(lambda: not cluster.call("squeue", "-h"))


def _daemon(stack: ExitStack, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
    output = stack.enter_context(log.open("w"))
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def end() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)


def _path() -> str:
    """PATH with the folders of the daemons, which only root's PATH may contain."""
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
