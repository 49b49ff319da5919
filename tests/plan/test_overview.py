"""The plan as it is printed: without MPI, without training, for any number of ranks."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hpcdd.artifacts.documents import write_document
from hpcdd.cli import plan as command
from hpcdd.core.errors import UserError
from hpcdd.plan import machine_file
from hpcdd.plan.machine import Machine

from .machines import machine, step

ARGUMENTS = ("--decomposition.grid", "1,2", "--model.name", "vgg2", "--model.width", "8", "--local.batch_size", "32")


def plan(tiny: Path, *arguments: str) -> str:
    out = io.StringIO()
    command.run_without_mpi([*arguments, "--data.file", str(tiny), *ARGUMENTS], out)
    return out.getvalue()


def row(text: str, title: str, first: str) -> list[str]:
    """The cells of a table's row."""
    lines = iter(text.splitlines())
    next(line for line in lines if line.startswith(title))
    cells = next(line for line in lines if line.startswith(f"│ {first} ")).strip("│").split("│")
    return [cell.strip() for cell in cells]


def measured(path: Path, *, seconds: float = 1e-2, latency: float = 1e-5, cores: int = 4) -> Path:
    """A machine file in which every unit of work takes ``seconds`` for each million of its operations."""
    steps = [step(seconds, kind=kind) for kind in ("cnn", "evaluation", "dnn", "head")]
    names = ("allreduce", "gather", "broadcast", "scatter", "allgather")
    fits = [{"collective": name, "latency": latency} for name in names]
    path.write_text(machine(steps=steps, fits=fits, cores=cores).model_dump_json())
    return path


def test_who_owns_what_and_what_it_takes(tiny: Path, tmp_path: Path) -> None:
    text = plan(tiny, "-n", "2", "--picture", str(tmp_path / "boxes.png"))
    assert row(text, "boxes and their owners", "1")[1:4] == ["0:12 x 4:12", "12 x 8", "1"]
    memory = row(text, "peak memory of a rank", "0")
    parts = [float(cell.replace(",", "")) for cell in memory[2:9]]
    assert sum(parts) == pytest.approx(float(memory[9].replace(",", "")), abs=0.5)
    assert row(text, "messages of a rank", "local")[1:4] == ["0", "0", "per step"]
    assert row(text, "messages of a rank", "coherent")[1:3] == ["1", f"{2 * 8 * (128 * 3 + 1):,}"]
    assert "No times without a machine file" in text
    assert min(Image.open(tmp_path / "boxes.png").size) > 200


def test_times_and_efficiency_follow_the_machine_file(tiny: Path, tmp_path: Path) -> None:
    one = plan(tiny, "-n", "1", "--threads", "1", "--machine", str(measured(tmp_path / "m.json")))
    two = plan(tiny, "-n", "2", "--threads", "1", "--ranks-per-host", "2", "--machine", str(tmp_path / "m.json"))

    def local(text: str) -> float:
        return float(row(text, "expected time", "local")[2].replace(",", ""))

    assert local(one) == pytest.approx(2 * local(two), rel=0.01)
    on_one_host = ("-n", "2", "--threads", "1", "--ranks-per-host", "2")
    on_one_core = plan(tiny, *on_one_host, "--machine", str(measured(tmp_path / "c.json", seconds=3e-2, cores=1)))
    assert local(on_one_core) == pytest.approx(6 * local(two), rel=0.01)
    efficiencies = [row(two, "expected efficiency", ranks) for ranks in ("1", "2", "100,000")]
    assert efficiencies[0][5] == efficiencies[0][7] == "1.00"
    assert 0.5 < float(efficiencies[1][7]) <= 1
    assert float(efficiencies[2][7]) < float(efficiencies[1][7])
    slow_wire = plan(tiny, *on_one_host, "--machine", str(measured(tmp_path / "w.json", latency=1.0)))
    assert float(row(slow_wire, "expected efficiency", "2")[7]) < float(efficiencies[1][7])


def test_each_of_many_ranks_has_its_box() -> None:
    out = io.StringIO()
    command.run_without_mpi(
        [
            "-n",
            "49",
            "--decomposition.grid",
            "7,7",
            "--decomposition.overlap",
            "0",
            "--model.name",
            "vgg2",
            "--model.local_width",
            "2",
        ],
        out,
    )
    assert row(out.getvalue(), "boxes and their owners", "48")[1:4] == ["24:28 x 24:28", "4 x 4", "48"]


def test_a_machine_file_is_read_back_and_mistakes_are_reported(tmp_path: Path) -> None:
    path = measured(tmp_path / "m.json")
    loaded = machine_file.load(path)
    write_document(tmp_path / "copy.json", loaded)
    assert machine_file.load(tmp_path / "copy.json") == loaded
    earlier = (tmp_path / "copy.json").read_text().replace('"oversubscribed"', '"crowded"')
    assert '"crowded"' in earlier
    (tmp_path / "copy.json").write_text(earlier)
    assert machine_file.load(tmp_path / "copy.json") == loaded, "of a revision that wrote this name"
    path.write_text(path.read_text().replace('"threads":1', '"threads":0', 1))
    with pytest.raises(UserError, match=r"m.json is damaged .*: steps.0.threads: Input should be greater than 0"):
        machine_file.load(path)
    with pytest.raises(UserError, match=r"(?s)can't be read: No such file.*\n.* `hpcdd bench step --output FILE`"):
        machine_file.load(tmp_path / "none.json")
    other = Machine.model_validate({**loaded.model_dump(), "torch": "another"})
    with pytest.raises(UserError, match="describes another machine: its torch is 'T', but here it is 'another'"):
        machine_file.joined(other, tmp_path / "copy.json")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with a configuration and the code that it names, which leaves a trace."""
    (tmp_path / "foreign.py").write_text(
        "import math, pathlib\nfrom torch import nn\npathlib.Path('ran').touch()\n"
        "def make(input_shape, num_classes, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))\n"
    )
    (tmp_path / "c.yaml").write_text("model: {name: foreign:make, local_width: 1}\n")
    return tmp_path


def test_code_that_a_configuration_names_does_not_run(foreign: Path) -> None:
    argv = [sys.executable, "-m", "hpcdd", "plan", "c.yaml", "-n", "1"]
    done = subprocess.run(argv, cwd=foreign, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--own foreign:make" in done.stderr
    assert not (foreign / "ran").exists()


@pytest.mark.parametrize(
    "program", [["-m", "hpcdd"], [str(Path(sys.executable).with_name("hpcdd"))]], ids=["m", "script"]
)
def test_it_is_found_in_the_working_folder_once_it_is_admitted(foreign: Path, program: list[str]) -> None:
    argv = [sys.executable, *program, "plan", "c.yaml", "-n", "1", "--own", "foreign:make"]
    done = subprocess.run(argv, cwd=foreign, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "7,850" in done.stdout  # parameters of the linear global CNN
    assert (foreign / "ran").exists()


@pytest.mark.slow
def test_no_mpi_is_needed(tiny: Path) -> None:
    program = (
        "import sys; from hpcdd.cli.main import main; code = main(sys.argv[1:]); "
        "print('mpi4py' in sys.modules); sys.exit(code)"
    )
    argv = [sys.executable, "-c", program, "plan", "-n", "3", "--data.file", str(tiny), *ARGUMENTS]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
