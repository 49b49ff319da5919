"""The command line as processes: quick help without torch and MPI, exit codes, messages without tracebacks."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdd import __version__
from hpcdd.cli.main import COMMANDS
from hpcdd.config.loading import from_yaml
from hpcdd.data.writing import write_dataset

from ..bad_input.outcome import check_text
from ..conftest import make_split
from ..waiting import LIMIT, wait_until

HELP = [["--help"], ["-h"], *[[word, "--help"] for word in COMMANDS], ["prepare", "nifti", "-h"], ["bench", "io", "-h"]]
LARGE = {
    "torch", "mpi4py", "numpy", "h5py", "scipy", "matplotlib", "PIL", "nibabel", "jinja2", "rich", "shtab", "onnx",
    "tensorboard", "hpcdd.runs", "hpcdd.training", "hpcdd.models",
}  # fmt: skip
"""All dependencies but those that check a configuration (pydantic, PyYAML) and count processors (psutil)."""


def hpcdd(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpcdd", *arguments],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help(arguments: list[str]) -> None:
    done = hpcdd(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match("usage: (mpirun -n N )?hpcdd", done.stdout)
    assert "example" in done.stdout


@pytest.mark.bench
@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help_is_quick(arguments: list[str]) -> None:
    """By its own CPU time, which is to be half a second: printed, and far from what importing torch takes."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        hpcdd(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"hpcdd {' '.join(arguments)}: {min(seconds):.2f} CPU seconds")
    assert min(seconds) < 10


@pytest.mark.parametrize("arguments", [*HELP, ["--version"], ["trian"]], ids=" ".join)
def test_what_only_prints_imports_no_large_library(arguments: list[str]) -> None:
    """What makes help quick on any machine: on a cluster's file system the size of what is imported counts most."""
    large = LARGE - ({"numpy", "h5py"} if arguments[0] == "prepare" else set())  # whose importers are described
    program = (
        "import sys\n"
        "from hpcdd.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print('imported:', *sorted({large | {'hpcdd.cli.main'}} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "imported: hpcdd.cli.main"


@pytest.mark.parametrize(
    "name", ["torch", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "enum", "pathlib"))]
)
def test_a_module_in_the_working_folder_hides_none(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('this is the wrong one')\n")
    done = hpcdd("plan", "-n", "1", "--data.file", "none.h5", cwd=tmp_path)
    assert done.returncode == 2
    assert "none.h5" in done.stderr


@pytest.mark.parametrize("name", ["random", "torch"])
def test_a_module_on_the_path_that_hides_another_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").touch()
    done = hpcdd("plan", "-n", "1", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search(rf"{re.escape(str(tmp_path / name))}.py hides .* {name!r}", done.stderr)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_name_that_the_terminal_lacks_is_escaped(tmp_path: Path, encoding: str) -> None:
    arguments = ["prepare", "phantom", "x.h5", "--samples", "20", "--size", "8", "8", "8", "--name", "車"]
    done = hpcdd(*arguments, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u8eca" in done.stdout


@pytest.mark.slow
def test_a_run_ends_with_its_report_on_a_terminal_of_any_encoding(tmp_path: Path) -> None:
    write_dataset(tmp_path / "x.h5", {"train": make_split(60), "test": make_split(30)}, name="車", class_names="aé車")
    arguments = ["--data.file", "x.h5", "--model.name", "vgg1", "--model.width", "4", "--local.epochs", "1"]
    arguments += ["--local.batch-size", "16", "--coherent.epochs", "1", "--coherent.batch-size", "16"]
    done = hpcdd("train", *arguments, "--output", "run", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run/report.html").exists()


def test_version() -> None:
    done = hpcdd("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hpcdd {__version__}\n", "")


def test_the_help_names_every_command_and_exit_code() -> None:
    text = hpcdd("--help").stdout
    for entry in (
        "  train ",
        "  prepare ",
        "  bench ",
        "  info ",
        "  0    done",
        "  2    a user error",
        "  3    a loss",
        "  74   something can't be written",
        "  75   stopped cleanly",
        "  130  Ctrl-C",
    ):
        assert entry in text


@pytest.mark.parametrize("arguments", [*HELP, ["bench", "io"], ["--version"], ["info"], ["zzz"]], ids=" ".join)
@pytest.mark.parametrize("kind", ["PMI", "OMPI_COMM_WORLD"])
def test_under_mpirun_one_process_is_enough_for_what_needs_no_mpi(arguments: list[str], kind: str) -> None:
    done = hpcdd(*arguments, **{f"{kind}_RANK": "1", f"{kind}_SIZE": "2"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_under_mpirun_the_first_process_prints_the_help() -> None:
    under_mpirun = hpcdd("train", "--help", PMI_RANK="0", PMI_SIZE="2")
    assert under_mpirun.returncode == 0
    assert under_mpirun.stdout == hpcdd("train", "--help").stdout
    assert "--aggregation.hidden" in under_mpirun.stdout


def test_info_names_versions_mpi_library_and_launcher() -> None:
    done = hpcdd("info")
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["hpcdd"] == __version__
    assert rows["torch"]
    assert re.search(r"^MPI library +.*(MPICH|Open MPI|Intel|MVAPICH)", done.stdout, re.MULTILINE)
    assert re.search(r"^MPI launcher +/.*(mpirun|mpiexec)", done.stdout, re.MULTILINE)
    assert re.search(r"^memory +\d+\.\d GiB", done.stdout, re.MULTILINE)
    assert "problem" not in done.stdout


NO_MPI = {"MPI4PY_LIBMPI": "/nonexistent/libmpi.so"}


def test_info_without_an_mpi_library_reports_it() -> None:
    done = hpcdd("info", **NO_MPI)
    assert done.returncode == 2
    (problem,) = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert "mpi4py finds no MPI library" in problem
    assert "pip install '.[mpi]'" in problem
    assert "Traceback" not in done.stderr


def test_info_without_an_mpirun_reports_it(tmp_path: Path) -> None:
    done = hpcdd("info", PATH=str(tmp_path))
    assert done.returncode == 2
    assert "problem: mpirun is not on PATH" in done.stdout


def test_train_without_an_mpi_library_is_one_line(tmp_path: Path) -> None:
    done = hpcdd("train", cwd=tmp_path, **NO_MPI)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hpcdd: mpi4py finds no MPI library")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rank", ["0", "1"])
def test_train_under_the_mpirun_of_another_mpi_is_refused_once(tmp_path: Path, mpi: object, rank: str) -> None:
    other = {"mpich": "OMPI_COMM_WORLD", "openmpi": "PMI"}[mpi.kind]  # type: ignore[attr-defined]
    done = hpcdd("train", cwd=tmp_path, **{f"{other}_RANK": rank, f"{other}_SIZE": "2"})
    assert done.stdout == ""
    if rank == "0":
        assert done.returncode == 2
        assert re.fullmatch(r"hpcdd: mpirun of .* started 2 processes, .*MPI4PY_LIBMPI.*\n", done.stderr)
    else:
        assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_line_each_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("local:\n  epohcs: 3\n  batch_size: 1\n")
    done = hpcdd("train", "c.yaml", "--seed", "x", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(line.split(" is ")[0] for line in done.stderr.splitlines()) == [
        "hpcdd: c.yaml:2: local.epohcs",
        "hpcdd: c.yaml:3: local.batch_size",
        "hpcdd: command line: seed",
    ]


def test_without_a_command_options_are_those_of_train(tmp_path: Path) -> None:
    done = hpcdd("--local.epochs", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("hpcdd: command line: local.epochs is 0")


def test_print_config_is_yaml_that_can_be_run(tmp_path: Path) -> None:
    done = hpcdd("train", "--print-config", "--local.epochs", "3", "--output", "x", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    config = from_yaml(done.stdout, "stdout")
    assert (config.name, config.local.epochs, config.output) == ("quickstart", 3, None)
    (tmp_path / "printed.yaml").write_text(done.stdout)
    assert hpcdd("train", "printed.yaml", "--print-config", cwd=tmp_path).stdout == done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["printed.yaml"]


def test_bench_io_prints_all_layouts_and_needs_no_mpi(tiny: Path) -> None:
    done = hpcdd("bench", "io", str(tiny), "--rounds", "2", "--decomposition.grid", "3,2", **NO_MPI)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiny, 300 images of [1, 12, 12]: 6 boxes" in done.stdout
    for name in ("contiguous", "chunks: whole images", "chunks: boxes", "chunks: boxes, unchecked", "numpy slice"):
        assert re.search(rf"^{name} +[\d.]+ \([\d.]+ to [\d.]+\) +[\d.]+ \(", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "io", "nowhere.yaml"], "configuration nowhere.yaml can't be read"),
        (["bench", "io", "--decomposition.grid", "2,2,2"], "decomposition.grid is [2, 2, 2], with 3 axes"),
    ],
)
def test_mistakes_of_bench_io(arguments: list[str], message: str) -> None:
    done = hpcdd(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"hpcdd: {message}"), done.stderr


STUDY = Path(__file__).parents[2] / "configs/studies/quick.yaml"
STOPPED = """
import pkgutil, sys, time
from pathlib import Path
from unittest import mock

from hpcdd.core.files import atomic_write
from hpcdd.cli.main import main

def work(*_, **__):
    with atomic_write(Path("file")) as temporary:
        temporary.touch()
        time.sleep(float(sys.argv[2]))

where, _, name = sys.argv[1].partition(":")
with mock.patch.object(pkgutil.resolve_name(where), name, work):
    sys.exit(main(sys.argv[3:]))
"""
"""A command whose work, a function of hpcdd's, is to write a file, for many seconds."""


@pytest.mark.parametrize(
    ("work", "command", "signum"),
    [
        ("plan.overview:run", "plan -n 2", signal.SIGINT),
        ("plan.overview:run", "plan -n 2", signal.SIGTERM),
        ("report.reports:write", "report run", signal.SIGINT),
        ("core.environment:facts", "info", signal.SIGTERM),
        ("bench.box_reading:run", "bench io", signal.SIGTERM),
        ("bench.device:run", "bench device --output device", signal.SIGINT),
        ("studies.dry_run:run", f"study {STUDY} --dry-run", signal.SIGTERM),
        ("data.prepare.conversion:run", "prepare phantom d.h5", signal.SIGINT),
        ("inference.predict:run", "predict run image.png", signal.SIGTERM),
        ("inference.export:run", "export run model.onnx", signal.SIGINT),
        ("cli.completion:script", "completion bash", signal.SIGTERM),
    ],
)
def test_a_signal_ends_a_command_of_one_process_in_good_order(
    tmp_path: Path, work: str, command: str, signum: signal.Signals
) -> None:
    words = [sys.executable, "-c", STOPPED, f"hpcdd.{work}", str(LIMIT), *command.split()]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: process.poll() is not None or list(tmp_path.glob(".file.*.tmp")))
        process.send_signal(signum)
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (128 + signum, ""), err
    name = command.split(maxsplit=1)[0]
    check_text(err, f"hpcdd: {name} was stopped by {signum.name}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "-n", "2"]], ids=["help", "tables"])
def test_a_reader_that_has_seen_enough_ends_a_command_quietly(arguments: list[str]) -> None:
    """As `hpcdd --help | head -1` does."""
    command = [sys.executable, "-m", "hpcdd", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141
