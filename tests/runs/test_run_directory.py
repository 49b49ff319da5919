"""The folder of a run: numbered, never overwritten."""

from __future__ import annotations

import errno
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcdd.cli import train
from hpcdd.cli.main import main
from hpcdd.config.schema import Config, DataSettings
from hpcdd.core.errors import UserError
from hpcdd.runs import resume
from hpcdd.runs.run_directory import RunDirectory, make, newest

from ..parsed import parse


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_runs_are_numbered_by_name() -> None:
    assert [str(make(None, "a").path) for _ in range(3)] == ["runs/a-001", "runs/a-002", "runs/a-003"]
    assert make(None, "b").path == Path("runs/b-001")


def test_a_free_number_is_reused_and_a_file_counts_as_taken() -> None:
    Path("runs").mkdir()
    Path("runs/a-001").write_text("")
    Path("runs/a-003").mkdir()
    assert [make(None, "a").path.name for _ in range(2)] == ["a-002", "a-004"]


def test_creators_at_the_same_time_get_folders_of_their_own() -> None:
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda _: make(None, "a").path, range(100)))
    assert len(set(paths)) == 100
    assert sorted(path.name for path in paths) == [f"a-{k:03d}" for k in range(1, 101)]


def test_output_is_made_with_its_parents_and_may_exist_if_it_is_empty(tmp_path: Path) -> None:
    Path("empty").mkdir()
    for output in ("deep/er/run", "empty", str(tmp_path / "absolute")):
        directory = make(output, "ignored")
        assert directory.path == Path(output)
        assert directory.log(3) == Path(output) / "logs" / "rank-0003.log"
        assert directory.log(3).parent.is_dir()
    assert not Path("runs").exists()


def with_a_nan() -> list[str]:
    """A command line whose data set has a mistake that is found when its pixels are read."""
    images = np.zeros((24, 1, 8, 6), np.float32)
    images[3, 0, 2, 2] = np.nan
    with h5py.File("d.h5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}/images"], file[f"{split}/labels"] = images, np.arange(24) % 3
        file.attrs.update({"hpcdd_format": 1, "class_names": ["a", "b", "c"], "mean": [0.0], "std": [1.0]})
    return ["train", "--data.file", "d.h5", "--model.name", "vgg1", "--decomposition.overlap", "0"]


def test_a_run_that_is_taken_back_takes_nothing_of_others_with_it() -> None:
    other = make(None, "a")
    assert main(with_a_nan()) == 2
    assert list(Path("runs").iterdir()) == [other.path]
    assert other.logs.exists()


@pytest.mark.parametrize("linked", [False, True])
def test_a_run_that_is_taken_back_leaves_the_folder_that_the_user_named_empty(linked: bool) -> None:
    """It may be striped over several servers, or a link."""
    Path("target").mkdir()
    if linked:
        Path("run").symlink_to("target")
    output = "run" if linked else "target"
    assert main([*with_a_nan(), "--output", output]) == 2
    assert list(Path(output).iterdir()) == []


def test_a_mistake_is_told_and_mended_where_open_files_keep_their_folders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on NFS: root's own log, lock and metrics are open when the run is taken back."""

    def not_empty(path: str, **_: object) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)

    command = [*with_a_nan(), "--output", "run", "--local.epochs", "1", "--coherent.epochs", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", not_empty)
        assert main(command) == 2
    assert re.fullmatch("hpcdd: data.file: .*NaN or infinite pixel.*\n", capsys.readouterr().err)
    assert condition("run") == "begun"
    with h5py.File("d.h5", "r+") as file:
        file["train/images"][3] = file["test/images"][3] = 0
    assert main(command) == 0


def condition(folder: str) -> str:
    return RunDirectory(Path(folder)).condition()


def test_the_condition_of_a_folder() -> None:
    assert condition("a/b") == "empty"
    assert list(Path().iterdir()) == []  # to ask makes nothing
    Path("full").mkdir()
    assert condition("full") == "empty"
    Path("full/.hidden").write_text("mine")
    assert condition("full") == "foreign"
    run = make("run", "a")
    assert condition("run") == "begun"  # a job that was killed before it had written its record
    run.write_record({"complete": False})
    assert condition("run") == "unfinished"
    run.write_record({"complete": True})
    assert condition("run") == "complete"


def test_a_file_is_refused() -> None:
    Path("file").write_text("mine")
    with pytest.raises(UserError, match="output is file, which is a file"):
        condition("file")
    with pytest.raises(UserError, match=r"can't be created.*--output FOLDER"):
        make("file/below", "a")
    Path("runs").write_text("mine")
    with pytest.raises(UserError, match=r"can't be created.*--output FOLDER"):
        make(None, "a")


def test_one_damaged_record_is_replaced_by_its_copy_and_two_are_reported() -> None:
    run = make("run", "a")
    run.write_record({"complete": False, "run": "x"})
    records = sorted(run.checkpoints.glob("run*.json"))
    assert len(records) == 2
    for record in records:
        whole = record.read_bytes()
        record.write_bytes(whole.replace(b"false", b"tru\x00e"))
        assert run.record() == {"complete": False, "run": "x"}
        record.write_bytes(whole)
    for record in records:
        record.write_bytes(record.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"can't be resumed: .*run.json is damaged.*; .*run-copy.json is damaged"):
        condition("run")


def test_the_newest_run_of_a_name() -> None:
    assert newest("a") is None
    for number, complete in ((1, False), (2, False), (10, True)):
        make(f"runs/a-{number:03d}", "a").write_record({"complete": complete})
    make("runs/a-b-099", "a-b").write_record({"complete": False})
    assert newest("a") == Path("runs/a-002")
    make("runs/a-002", "a").write_record({"complete": True})
    make("runs/a-001", "a").write_record({"complete": True})
    assert newest("a") == Path("runs/a-010")


def damage(run: RunDirectory) -> None:
    for record in run.checkpoints.glob("run*.json"):
        record.write_bytes(b"{")


def test_files_and_damaged_older_runs_are_no_obstacle_to_the_newest() -> None:
    runs = [make(None, "a") for _ in range(3)]
    for run in runs:
        run.write_record({"complete": False})
    damage(runs[0])
    Path("runs/a-004").write_text("mine")
    assert newest("a") == runs[2].path
    runs[2].write_record({"complete": True})
    damage(runs[1])
    assert newest("a") == runs[2].path


def test_a_damaged_newest_run_is_reported() -> None:
    make(None, "a").write_record({"complete": False})
    run = make(None, "a")
    run.write_record({"complete": False})
    damage(run)
    with pytest.raises(UserError, match=r"a-002/checkpoints/run.json is damaged.*--output"):
        resume.resolve(train.request(["--resume", "--name", "a"]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "3", "--output", "runs/quickstart-001"],
        ["--output", "runs/quickstart-001"],
        ["--resume", "--output", "runs/quickstart-001"],
        ["--resume"],
    ],
    ids=" ".join,
)
def test_nothing_is_left_to_do_on_a_complete_run(arguments: list[str]) -> None:
    config = parse(["--seed", "3"])[0]
    facts = {"dataset": "", "blocks": 16, "device": "cpu", "replicas": 1, "workers": 1}
    record = {**resume.record_of(config, "1234", **facts), "complete": True}
    make("runs/quickstart-001", "quickstart").write_record(record)
    job = resume.resolve(train.request(arguments))
    assert job.done
    assert job.config.output == "runs/quickstart-001"


@pytest.mark.parametrize("arguments", [["--output", "$HPCDD_TEST/run"], ["c.yaml"]], ids=["command line", "file"])
def test_the_folder_that_a_variable_names_is_resumed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCDD_TEST", f"{Path.cwd()}/$ a")
    Path("c.yaml").write_text("output: $HPCDD_TEST/run\n")
    run = make("$ a/run", "a")
    run.write_record(resume.record_of(Config(data=DataSettings(file="/x/$$y.h5")), "id", blocks=16, device="cpu"))
    job = resume.resolve(train.request([*arguments, "--resume", "--seed", "0"]))
    assert job.config.output == str(run.path.absolute())
    assert job.record is not None
    assert job.config.data.file == ("embedded" if arguments == ["c.yaml"] else "/x/$y.h5")


def test_a_folder_of_a_variable_that_is_not_set_is_refused() -> None:
    with pytest.raises(UserError, match="output is '.HPCDD_NONE/run': .*'HPCDD_NONE' is not set"):
        resume.resolve(train.request(["--output", "$HPCDD_NONE/run"]))
