"""The scripts in jobs/ as texts, and those for PBS and LSF under bash, with their variables set by hand."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from ..launchers import find
from ..programs import JOBS, stand_in
from ..waiting import LIMIT, wait_until

SCRIPTS = sorted(path for path in JOBS.iterdir() if path.suffix not in (".txt", ".def"))
DIRECTIVES = {".sbatch": "#SBATCH", ".pbs": "#PBS", ".lsf": "#BSUB"}
SUBMIT = {".sbatch": "sbatch ", ".pbs": "qsub ", ".lsf": "bsub ", ".sh": "jobs/scaling.sh "}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_can_be_read_and_copied_by_itself(script: Path) -> None:
    text = script.read_text()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    first, *head = text.split("\n\n")[0].splitlines()
    assert first == "#!/bin/bash"
    assert all(line.startswith("#") for line in head if not line.startswith("set "))
    comments = "\n".join(line for line in head if line.startswith("# "))
    assert SUBMIT[script.suffix] in comments
    assert "# Edit: " in comments
    assert script.name in comments
    for config in re.findall(r"configs/\S+?\.yaml", comments):
        if not config.startswith("configs/scaling"):
            assert (JOBS.parent / config).exists()
    directives = [line for line in text.splitlines() if line.startswith(DIRECTIVES.get(script.suffix, "\0"))]
    assert not [line for line in directives if re.search(r"partition|account|qos|constraint| -[qAPM]\b|reserv", line)]
    assert "module load" not in re.sub(r"(?m)^#.*", "", text)


@pytest.mark.parametrize(
    "name", ["train.sbatch", "train_gpu.sbatch", "train_preemptible.sbatch", "study.sbatch", "runs.sbatch"]
)
def test_a_training_is_warned_before_its_time_is_over(name: str) -> None:
    text = (JOBS / name).read_text()
    assert "\n#SBATCH --signal=USR1@120\n" in text


@pytest.mark.parametrize("script", sorted(JOBS.glob("*.sbatch")), ids=lambda path: path.name)
def test_a_requeued_job_appends_to_its_log(script: Path) -> None:
    text = script.read_text()
    if "\n#SBATCH --no-requeue\n" not in text:
        assert "\n#SBATCH --requeue\n" in text
        assert "\n#SBATCH --open-mode=append\n" in text


def test_the_lines_of_the_example_study_are_configurations_that_run() -> None:
    from ..parsed import parse

    lines = [line for line in (JOBS / "study.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 3
    for line in lines:
        config, *arguments = shlex.split(line)
        parse([str(JOBS.parent / config), *arguments])


# The program takes the warning, as hpcdd does; mpirun has to pass it on. What it waits for is there before the warning
# can come, and ends with it: a child that lives on would hold the pipe in which the job's output is read. The child
# ignores the warning, which may reach it first: its end would end the program.
WARNED = """
printf "%s|" "$OMP_NUM_THREADS" "$@" | sed 's/$/\\n/'
(trap '' USR1; exec sleep 600) & waited=$!
trap 'kill $waited; exit 75' USR1
touch began-$PMI_RANK
wait
"""
# The real one, whose time is over by the signal that its alarm clock sends it, and by nothing else.
TIMEOUT = f"""
echo "$*" >timed
echo $$ >timeout.pid
exec "{shutil.which("timeout")}" "$1" "$2" 0 "${{@:4}}"
"""


def start(script: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    programs = {
        "qstat": "echo '    Resource_List.walltime = 00:02:03'",
        "mpirun": f'exec "{find()["mpich"].mpirun}" "$@"',
        "timeout": TIMEOUT,
    }
    (folder / "bin").mkdir()
    for name, text in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "nodes").write_text("localhost\nlocalhost\n")
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "HPCDD_VENV": stand_in(folder, WARNED),
        "HPCDD_WORDS": "x.yaml --name 'a  b' --coherent.starts '[]'",
    }
    return subprocess.Popen(
        ["bash", JOBS / script],
        cwd=folder,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def check_warned(job: subprocess.Popen[str]) -> None:
    out, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == 75, out
    printed = ["1", "train", "x.yaml", "--name", "a  b", "--coherent.starts", "[]"]
    assert [line.rstrip("|").split("|") for line in out.splitlines() if "|" in line] == [printed] * 2


def test_pbs_by_its_variables(tmp_path: Path) -> None:
    """The walltime is 123 seconds, and the warning comes 120 seconds before its end."""
    job = start("train.pbs", tmp_path, PBS_O_WORKDIR=str(tmp_path), PBS_NODEFILE="nodes", PBS_JOBID="1")
    wait_until(lambda: len(list(tmp_path.glob("began-*"))) == 2)
    os.kill(int((tmp_path / "timeout.pid").read_text()), signal.SIGALRM)
    check_warned(job)
    assert (tmp_path / "timed").read_text().startswith("--preserve-status --signal=USR1 3 mpirun -n 2 ")


def test_lsf_by_its_variables(tmp_path: Path) -> None:
    """LSF signals all processes of the job."""
    job = start("train.lsf", tmp_path, LSB_DJOB_NUMPROC="2")
    wait_until(lambda: len(list(tmp_path.glob("began-*"))) == 2)
    os.killpg(job.pid, signal.SIGUSR1)
    check_warned(job)
