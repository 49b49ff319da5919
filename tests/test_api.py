"""What ``import hpcdd`` offers: in one process, as in a notebook, and in a script under mpirun."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import hpcdd

from .launchers import Launcher
from .waiting import LIMIT

SMALL: dict[str, Any] = {
    "model": {"name": "vgg1", "width": 4, "local_width": 2},
    "local.epochs": 1,
    "aggregation.epochs": 1,
    "coherent.epochs": 1,
    "progress": "off",
    "run.report": False,
}
SCRIPT = """
import sys
from mpi4py import MPI
import hpcdd

group = MPI.COMM_WORLD.rank // 2
config = hpcdd.Config.load(overrides={**eval(sys.argv[1]), "output": f"run{group}"})
run = hpcdd.train(config, comm=MPI.COMM_WORLD.Split(group))
assert run.directory.name == f"run{group}"
"""


@pytest.fixture
def config(tiny: Path, tmp_path: Path) -> hpcdd.Config:
    return hpcdd.Config.load(overrides={**SMALL, "data.file": str(tiny), "output": str(tmp_path / "run")})


def test_every_public_name_is_there_and_imported_when_it_is_used() -> None:
    assert set(hpcdd.__all__) <= set(dir(hpcdd))
    assert all(getattr(hpcdd, name) for name in hpcdd.__all__)
    with pytest.raises(AttributeError, match="'hpcdd' has no attribute 'trian'"):
        hpcdd.trian  # noqa: B018
    program = "import sys; before = set(sys.modules); import hpcdd; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "hpcdd\n", "nothing else, be it a module of the standard library"


def test_a_configuration_is_a_file_with_some_settings_replaced(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 3\nlocal:\n  epochs: 7\n  batch_size: 64\n")
    config = hpcdd.Config.load(path, {"local.epochs": 2, "aggregation": {"epochs": 4}, "decomposition.grid": (1, 2)})
    assert (config.seed, config.local.epochs, config.local.batch_size) == (3, 2, 64)
    assert (config.aggregation.epochs, config.decomposition.grid) == (4, (1, 2))
    assert hpcdd.Config.load().name == "quickstart"


def test_every_mistake_is_reported_with_its_place_and_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 3\nlocal:\n  epochs: -7\n")
    with pytest.raises(hpcdd.UserError) as error:
        hpcdd.Config.load(path, {"local.batchsize": 2, "modle.width": 3})
    lines = sorted(str(error.value).splitlines())
    assert [line.partition(": ")[0] for line in lines] == [f"{path}:3", "overrides", "overrides"]
    assert "local.epochs is -7" in lines[0]
    assert "local.batch_size" in lines[1]
    assert "model" in lines[2]


def test_a_run_in_one_process(config: hpcdd.Config) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)], torch.get_num_threads()
    run = hpcdd.train(config)
    assert ([signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)], torch.get_num_threads()) == before
    assert run.directory == Path(str(config.output))
    assert json.loads((run.directory / "results.json").read_text()) == run.results.content()
    assert run.results.accuracy["test"].dnn == run.results.strategy("dnn")
    assert 0 <= (run.results.strategy("dnn") or -1) <= 1
    assert isinstance(hpcdd.load(run.directory), torch.nn.Module)
    written = (run.directory / "model.h5").stat().st_mtime_ns
    assert hpcdd.train(config) == run, "a complete run is returned as it is"
    assert (run.directory / "model.h5").stat().st_mtime_ns == written


def test_an_evaluation_is_that_of_the_run(config: hpcdd.Config, tmp_path: Path) -> None:
    run = hpcdd.train(config)
    evaluated = hpcdd.evaluate(run.directory, output=tmp_path / "evaluation")
    assert evaluated.accuracy == run.results.accuracy["test"]
    assert (evaluated.split, evaluated.samples, evaluated.ranks) == ("test", 90, 1)
    assert json.loads((tmp_path / "evaluation" / "evaluation.json").read_text()) == evaluated.content()


def test_a_data_set_is_prepared(tmp_path: Path) -> None:
    info = hpcdd.prepare("phantom", None, tmp_path / "p.h5", options={"samples": 12, "size": [8, 8, 8]}, grid="2,1,1")
    assert (info.samples["train"], info.image_shape) == (10, (1, 8, 8, 8))
    assert {path.name for path in tmp_path.iterdir()} == {"p.h5", "p.png"}
    with pytest.raises(hpcdd.UserError, match="'windw' is not an option of nifti; its options are .*window"):
        hpcdd.prepare("nifti", tmp_path, tmp_path / "n.h5", options={"windw": 3})
    with pytest.raises(hpcdd.UserError, match="'photos' is not a kind of source; use one of .*folder"):
        hpcdd.prepare("photos", tmp_path, tmp_path / "n.h5")


def test_a_folder_that_holds_something_else_is_refused(config: hpcdd.Config) -> None:
    Path(str(config.output)).mkdir()
    (Path(str(config.output)) / "notes.txt").write_text("mine")
    with pytest.raises(hpcdd.UserError, match=r"holds no run; it is not overwritten") as error:
        hpcdd.train(config)
    assert str(config.output) in str(error.value)


def test_training_in_a_thread_is_refused(config: hpcdd.Config) -> None:
    messages: list[str] = []

    def work() -> None:
        try:
            hpcdd.train(config)
        except hpcdd.UserError as error:
            messages.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(LIMIT)
    assert "main thread" in messages[0]
    assert not Path(str(config.output)).exists()


def test_a_script_with_communicators_of_its_own(mpi: Launcher, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = mpi.run(4, ["script.py", repr({**SMALL, "data.file": str(tiny)})], tmp_path)
    assert done.returncode == 0, done.stderr
    one, other = (json.loads((tmp_path / f"run{group}/results.json").read_text()) for group in (0, 1))
    assert one["accuracy"] == other["accuracy"]


def test_what_one_rank_meets_alone_ends_the_job(mpi: Launcher, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "fails_on_one.py").write_text(
        "import math, torch\n"
        "from mpi4py import MPI\n"
        "class CNN(torch.nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        if self.training and MPI.COMM_WORLD.rank == 1:\n"
        "            raise RuntimeError('a broken device')\n"
        "        return super().forward(x)\n"
        "def make(*, input_shape, num_classes, width):\n"
        "    return CNN(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), num_classes))\n"
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    settings = {**SMALL, "data.file": str(tiny), "model": {"name": "fails_on_one:make", "local_width": 1}}
    settings["coherent.features"] = "logits"
    done = mpi.run(2, ["script.py", repr(settings)], tmp_path)
    assert done.returncode == 1
    assert re.search(r"^hpcdd: rank 1 of 2 on .* failed in phase local", done.stderr, re.MULTILINE)
    assert "RuntimeError: a broken device" in done.stderr


def test_boxes_of_a_grid() -> None:
    boxes = hpcdd.Decomposition.grid((32, 32), (2, 2), overlap=4).boxes
    assert [box.shape for box in boxes] == [(20, 20)] * 4
