"""``hpcdd prepare`` with every kind of source, from the command line to file and contact sheet."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from hpcdd.cli.main import main
from hpcdd.data.format import DatasetInfo, inspect
from hpcdd.data.prepare import contact_sheet, conversion

from ...bad_input.outcome import check_text
from ...waiting import LIMIT, wait_until
from .importers.sources import tar_bytes, write_files, zip_bytes
from .importers.test_arrays import medmnist, npy_bytes
from .importers.test_cifar import binary10, python100
from .importers.test_faces import database
from .importers.test_idx import write_folder
from .importers.test_image_files import png
from .importers.test_nifti import nii, ramp


def write_source(kind: str, root: Path) -> list[str]:
    """A small source in the publisher's format; its path and the options that it needs."""
    source = root / f"{kind}-source"
    if kind == "cifar10":
        source.write_bytes(tar_bytes(binary10()))
    elif kind == "cifar100":
        source.write_bytes(tar_bytes(python100()))
        return [str(source), "--labels", "coarse"]
    elif kind == "idx":
        write_folder(source, train=20, test=12, gz=True)
    elif kind == "folder":
        source.write_bytes(tar_bytes({f"x/{name}/{i}.png": png(5, 5 + i, 30 * i) for name in "ab" for i in range(5)}))
        return [str(source), "--size", "6", "6", "--fit", "pad", "--rgb"]
    elif kind == "faces":
        write_files(source, database())
    elif kind == "nifti":
        files = {f"CT-{grade}/{i}.nii.gz": gzip.compress(nii(ramp())) for grade in range(2) for i in range(4)}
        write_files(source, files)
    elif kind == "npz":
        source.write_bytes(zip_bytes({f"{name}.npy": npy_bytes(array) for name, array in medmnist(6, 5).items()}))
    elif kind == "npy":
        write_files(source, {f"{name}.npy": npy_bytes(array) for name, array in medmnist(4, 6, 5).items()})
    else:
        return ["--samples", "10", "--size", "8", "8", "8"]
    return [str(source)]


@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "idx", "folder", "faces", "nifti", "npz", "npy", "phantom"])
def test_every_kind_twice(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = write_source(kind, tmp_path)
    out, sheet = tmp_path / "out" / "d.h5", tmp_path / "out" / "d.png"
    command = ["prepare", kind, *(arguments if kind != "phantom" else []), str(out), "--grid", "2", "--overlap", "1"]
    command += arguments if kind == "phantom" else []
    made = []
    for _ in range(2):
        assert main(command) == 0, capsys.readouterr().err
        made.append((out.read_bytes(), sheet.read_bytes()))
        out.unlink()
        time.sleep(1.1 if kind == "idx" and len(made) == 1 else 0)  # no time of day is in the files
    assert made[0] == made[1]
    assert sorted(path.name for path in out.parent.iterdir()) == ["d.png"]
    out.write_bytes(made[0][0])
    info = inspect(out)
    printed = capsys.readouterr().out
    assert f"samples of each class: {sheet}" in printed
    assert ("synthetic" in printed) == (kind == "phantom")
    assert {"train", "test"} <= set(info.samples)
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
    with h5py.File(out) as file:
        assert file["train/images"].chunks[1:] != info.image_shape
        assert file["train/images"].chunks[1] == info.image_shape[0]
        assert ("synthetic" in info.source) == (kind == "phantom")


def test_splits_are_drawn_where_there_are_none(tmp_path: Path) -> None:
    arguments = write_source("nifti", tmp_path)
    options = ["--test-fraction", "0.25", "--validation-fraction", "0.25", "--class-names", "CT-0=mild,CT-1=severe"]
    assert main(["prepare", "nifti", *arguments, str(tmp_path / "d.h5"), *options]) == 0
    info = inspect(tmp_path / "d.h5")
    assert info.samples == {"train": 4, "validation": 2, "test": 2}
    assert info.class_names == ("mild", "severe")
    assert {name: labels.tolist() for name, labels in info.labels.items()}["test"] == [0, 1]


def test_no_option_hides_what_is_synthetic(tmp_path: Path) -> None:
    arguments = write_source("phantom", tmp_path)
    options = ["--name", "chests", "--source-note", "for a talk"]
    assert main(["prepare", "phantom", str(tmp_path / "d.h5"), *arguments, *options]) == 0
    info = inspect(tmp_path / "d.h5")
    assert info.name == "chests (synthetic)"
    assert info.source == "synthetic, computed by hpcdd prepare phantom with seed 0; no patient's data; for a talk"


def bad_folder(root: Path, bad: tuple[str, ...]) -> Path:
    files = {f"{name}/{i}.png": png(5, 4, 10 * i) for name in "ab" for i in range(6)}
    return write_files(root / "images", files | {name: files[name][:-24] for name in bad})


@pytest.mark.parametrize("bad", [("a/0.png",), ("b/3.png",)], ids=["first", "later"])
def test_a_bad_file_stops_and_leaves_nothing(tmp_path: Path, bad: tuple[str, ...], capsys: Any) -> None:
    source, out = bad_folder(tmp_path, bad), tmp_path / "out" / "d.h5"
    assert main(["prepare", "folder", str(source), str(out)]) == 2
    error = capsys.readouterr().err
    assert f"{source / bad[0]} can't be read as an image" in error
    assert "--skip-bad" in error
    assert not out.parent.exists()
    out.parent.mkdir()
    out.write_bytes(b"what was there")
    assert main(["prepare", "folder", str(source), str(out)]) == 2
    assert out.read_bytes() == b"what was there"


@pytest.mark.parametrize("threads", ["1", "3"])
def test_bad_files_are_skipped_and_counted(tmp_path: Path, threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = bad_folder(tmp_path, ("a/0.png", "a/3.png", "b/5.png")), tmp_path / "d.h5"
    command = ["prepare", "folder", str(source), str(out), "--skip-bad", "--threads", threads, "--coarse", "2"]
    assert main([*command, "--test-fraction", "0.34"]) == 0
    printed = capsys.readouterr().out
    assert "skipped 3 bad files: " in printed
    info = inspect(out)
    assert sum(info.samples.values()) == 9
    with h5py.File(out) as file:
        for split in info.samples:
            images = file[split]["images"][:]
            assert len(images) == len(file[split]["coarse"]) == len(file[split]["labels"])
            assert (images == images[:, :, :1, :1]).all()


def test_all_bad_is_reported_even_if_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bad_folder(tmp_path, tuple(f"{name}/{i}.png" for name in "ab" for i in range(6)))
    assert main(["prepare", "folder", str(source), str(tmp_path / "d.h5"), "--skip-bad"]) == 2
    assert "none of 12 files can be read" in capsys.readouterr().err
    assert not (tmp_path / "d.h5").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", "9,2"], "--grid is [9, 2], but the image is 5 pixels long along axis 0; use 1 to 5 along axis 0"),
        (["--grid", "2,2,2"], "--grid is [2, 2, 2], with 3 axes, but the image has 2 spatial axes"),
        (["--grid", "2,x"], "--grid is '2,x'; use one positive integer (2), or one per spatial axis (2,2)"),
        (["--grid", "0"], "--grid is '0'; use one positive integer"),
        (["--grid", "2", "--overlap", "-1"], "--overlap is '-1'; use one integer of 0 or more (2)"),
        (["--overlap", "1"], "--overlap 1 applies to the boxes of a grid; give --grid as well"),
        (["--seed", "-1"], "--seed is -1; use 0 or more"),
        (["--test-fraction", "0.5"], "--test-fraction is 0.5, but the source already has a test split (12 samples)"),
    ],
)
def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    write_folder(tmp_path / "source", train=20, test=12)
    assert main(["prepare", "idx", str(tmp_path / "source"), str(tmp_path / "out" / "d.h5"), *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"hpcdd: {message}")
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.glob("out/*"))


def test_neither_source_nor_picture_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = write_source("npz", tmp_path)
    before = Path(source).read_bytes()
    assert main(["prepare", "npz", source, source]) == 2
    assert f"{source} is the source itself" in capsys.readouterr().err
    assert Path(source).read_bytes() == before
    assert main(["prepare", "npz", source, str(tmp_path / "d.png")]) == 2
    assert "is the name of an image; name a dataset file, such as" in capsys.readouterr().err


def test_no_threads_and_a_folder_where_the_sheet_belongs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bad_folder(tmp_path, ())
    assert main(["prepare", "folder", str(source), str(tmp_path / "d.h5"), "--threads", "0"]) == 2
    check_text(capsys.readouterr().err, "hpcdd: --threads is 0; use 1 or more\n")
    (tmp_path / "d.png").mkdir()
    assert main(["prepare", "folder", str(source), str(tmp_path / "d.h5")]) == 2
    assert "d.png is a folder" in capsys.readouterr().err
    assert not (tmp_path / "d.h5").exists()


def test_labels_that_are_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"images.npy": npy_bytes(np.arange(200, dtype=np.uint8).reshape(8, 5, 5)), "labels.npy": b""}
    files["labels.npy"] = npy_bytes(np.array([0, 1, 0, 1, 10**9, 1, 0, 1]))
    source = write_files(tmp_path / "arrays", files)
    assert main(["prepare", "npy", str(source), str(tmp_path / "d.h5")]) == 2
    assert (
        "labels go from 0 to 1000000000, but only 3 of these numbers occur (0, 1, 1000000000)"
        in capsys.readouterr().err
    )


def test_the_sheet_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = write_source("npz", tmp_path)

    def interrupted(_image: Any, path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    assert main(["prepare", "npz", source, str(tmp_path / "out" / "d.h5")]) == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["d.h5"]


@pytest.mark.parametrize(("signum", "name"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_in_the_middle_leaves_nothing_behind(tmp_path: Path, signum: int, name: str) -> None:
    command = [sys.executable, "-m", "hpcdd", "prepare", "phantom", "out/d.h5", "--samples", "100000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: list(tmp_path.glob("out/.d.h5*")))
        os.kill(process.pid, signum)
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (128 + signum, "")
    check_text(err, f"hpcdd: prepare was stopped by {name}\n")
    assert not (tmp_path / "out").exists()


def test_a_bar_where_stderr_is_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with conversion._progress(4) as advance:
        advance(4)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with conversion._progress(4) as advance:
        advance(3)
    assert "3/4" in capsys.readouterr().err
    monkeypatch.undo()


def test_what_is_shown_comes_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sheet gets the boxes that --grid and --overlap mean."""
    seen: list[Any] = []

    def write(path: Path, info: DatasetInfo, decomposition: Any, *, synthetic: bool) -> None:
        seen.append((path.name, info.path.name, [box.shape for box in decomposition.boxes], synthetic))

    monkeypatch.setattr(contact_sheet, "write", write)
    arguments = write_source("phantom", tmp_path)
    assert (
        main(["prepare", "phantom", str(tmp_path / "d.h5"), *arguments, "--grid", "2,1,1", "--overlap", "1,0,0"]) == 0
    )
    assert seen == [("d.png", "d.h5", [(5, 8, 8), (5, 8, 8)], True)]
