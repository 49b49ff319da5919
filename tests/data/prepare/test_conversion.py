"""``hpcdd prepare`` from the command line to the file."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcdd.cli.main import main
from hpcdd.data.coarse import average
from hpcdd.data.format import EMBEDDED, inspect

from ...bad_input.outcome import check_text
from ...waiting import LIMIT
from .importers.sources import write_files
from .importers.test_folder import write_folders
from .importers.test_idx import write_folder
from .importers.test_image_files import png

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
needs_fashion_mnist = pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason=f"{FASHION_MNIST} is not there")


def test_the_whole_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_folder(tmp_path / "source", train=12, test=6)
    out = tmp_path / "out.h5"
    command = ["prepare", "idx", str(tmp_path / "source"), str(out), "--licence", "CC0", "--source-note", "a note"]
    assert main(command) == 0
    info = inspect(out)
    assert (info.name, info.licence, info.source) == ("source", "CC0", "a note")
    assert info.class_names == ("0", "1", "2")
    assert info.samples == {"train": 12, "test": 6}
    with h5py.File(out) as file:
        assert np.array_equal(file["train/images"][:, 0], images["train"])
        assert shlex.split(file.attrs["command"].decode()) == ["hpcdd", *command]
    printed = capsys.readouterr().out
    assert "train: 12 samples (0 4, 1 4, 2 4)" in printed
    assert "images (1, 5, 4) uint8" in printed


def test_a_balanced_subset_is_the_first_of_each_class_in_order(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "source", train=20, test=12)  # labels 0 0 1 1 2 2 0 0 1 1 2 2 ...
    out = tmp_path / "out.h5"
    options = ["--train-samples", "9", "--test-samples", "3", "--name", "few", "--class-names", "ant, bee,cat"]
    assert main(["prepare", "idx", str(tmp_path / "source"), str(out), *options]) == 0
    rows = {"train": [0, 1, 2, 3, 4, 5, 6, 8, 10], "test": [0, 2, 4]}
    info = inspect(out)
    assert (info.name, info.class_names) == ("few", ("ant", "bee", "cat"))
    with h5py.File(out) as file:
        for split, chosen in rows.items():
            assert np.array_equal(file[split]["images"][:, 0], images[split][chosen])
            assert np.bincount(file[split]["labels"]).tolist() == [len(chosen) // 3] * 3


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Images of cats, which are darker than those of dogs, and these darker than those of mice."""
    files = {
        f"{name}/{i}.png": png(4, 4, 80 * k + i) for k, name in enumerate(("cat", "dog", "mouse")) for i in range(5)
    }
    return write_files(tmp_path / "pets", files)


def darkest(path: Path) -> dict[str, int]:
    """By class the darkest pixel of its training images, a multiple of 80 and a little."""
    names = inspect(path).class_names
    with h5py.File(path) as file:
        images, labels = file["train/images"][:], file["train/labels"][:]
    return {name: int(images[labels == k].min()) // 80 for k, name in enumerate(names)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mouse,cat,dog", {"mouse": 2, "cat": 0, "dog": 1}),
        ("dog=hound, cat, mouse=rodent", {"hound": 1, "cat": 0, "rodent": 2}),
        ("cat=dog,dog=cat,mouse", {"dog": 0, "cat": 1, "mouse": 2}),
    ],
)
def test_images_follow_the_names_of_their_class(
    tmp_path: Path, pets: Path, given: str, expected: dict[str, int]
) -> None:
    out = tmp_path / "out.h5"
    assert main(["prepare", "folder", str(pets), str(out), "--class-names", given]) == 0
    assert list(darkest(out).items()) == list(expected.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "cat,dog,rat",
            "rat is not a class of the source and mouse is missing; the source has cat, dog, mouse; list each",
        ),
        ("cat,dog", "mouse is missing; the source has cat, dog, mouse"),
        ("cat,dog,mouse,rat", "rat is not a class of the source; the source has cat, dog, mouse"),
        ("cat,cat,dog", "--class-names lists 'cat' twice"),
        ("cat,dog=cat,mouse", "--class-names lists 'cat' twice"),
        ("cat=,dog,mouse", "holds an empty name; write A,B,C"),
        ("rat=cat,dog,mouse", "rat is not a class of the source and cat is missing"),
    ],
)
def test_names_that_are_not_those_of_the_classes(
    tmp_path: Path, pets: Path, capsys: pytest.CaptureFixture[str], given: str, message: str
) -> None:
    assert main(["prepare", "folder", str(pets), str(tmp_path / "out.h5"), "--class-names", given]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.h5").exists()


def numbered(folder: Path, labels: list[int], test: list[int] | None = None) -> str:
    """Arrays of one pixel value for each label; 24 images of each label for training, and for the test unless given."""
    arrays = {}
    for split, split_labels in (("train", labels), ("test", labels if test is None else test)):
        arrays[f"{split}_labels"] = np.repeat(split_labels, 24)
        noise = np.random.default_rng(0).integers(0, 10, (24 * len(split_labels), 4, 4))
        arrays[f"{split}_images"] = (noise + 10 * arrays[f"{split}_labels"][:, None, None]).astype(np.uint8)
    np.savez(folder / "source.npz", **arrays)
    return str(folder / "source.npz")


@pytest.mark.parametrize(
    ("labels", "given", "names", "note"),
    [
        ([1, 2, 3], [], ("1", "2", "3"), "the source's labels 1, 2, 3 become classes 0 to 2"),
        ([1, 2, 3], ["--class-names", "a,b,c"], ("a", "b", "c"), "labels 1, 2, 3 become classes 0 to 2"),
        ([3, 8], ["--class-names", "three,eight"], ("three", "eight"), "labels 3, 8 become classes 0 to 1"),
    ],
)
def test_labels_that_do_not_count_from_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: list[int], given: list[str], names: Any, note: str
) -> None:
    assert main(["prepare", "npz", numbered(tmp_path, labels), str(tmp_path / "d.h5"), *given]) == 0
    assert note in capsys.readouterr().out
    info = inspect(tmp_path / "d.h5")
    assert info.class_names == names
    with h5py.File(tmp_path / "d.h5") as file:
        assert [int(file["train/images"][i].min()) // 10 for i in range(0, 24 * len(labels), 24)] == labels
    assert np.unique(info.labels["test"]).tolist() == list(range(len(labels)))


@pytest.mark.parametrize(
    ("labels", "test", "given", "message"),
    [
        ([0, 1, 5], [0, 1], [], "labels go from 0 to 5, but only 3 of these numbers occur (0, 1, 5); if each of these"),
        (
            [0, 1],
            [0, 1, 2],
            [],
            "1 of 3 classes have no training samples: 2; no model can learn them, so add samples or",
        ),
        ([0, 1], [0, 1], ["--class-names", "a,b,c"], "lists 3 names, but the source has 2 labels (0, 1); name one for"),
        ([0, 1], [0, 1], ["--class-names", "a,a"], "--class-names lists 'a' twice"),
        ([-1, 0, 1], [0, 1], [], "holds the label -1; labels must be class numbers of 0 or more"),
    ],
)
def test_labels_that_are_no_classes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    labels: list[int],
    test: list[int],
    given: list[str],
    message: str,
) -> None:
    assert main(["prepare", "npz", numbered(tmp_path, labels, test), str(tmp_path / "d.h5"), *given]) == 2
    assert message in capsys.readouterr().err


def test_a_class_whose_files_are_all_bad(tmp_path: Path, pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in pets.glob("mouse/*.png"):
        path.write_bytes(b"")
    assert main(["prepare", "folder", str(pets), str(tmp_path / "out.h5"), "--skip-bad"]) == 2
    assert "classes have no training samples after 4 bad files were left out: mouse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "block", "shape"), [("2", (2, 2), (1, 3, 2)), ("5,1", (5, 1), (1, 1, 4)), ("2, 3", (2, 3), (1, 3, 2))]
)
def test_coarse_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, block: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    images = write_folder(tmp_path / "source", train=12, test=6)  # of 5 x 4 pixels
    assert main(["prepare", "idx", str(tmp_path / "source"), str(tmp_path / "out.h5"), "--coarse", text]) == 0
    assert inspect(tmp_path / "out.h5").coarse == block
    with h5py.File(tmp_path / "out.h5") as file:
        for split in ("train", "test"):
            assert np.array_equal(file[split]["coarse"], average(images[split][:, None], block))
    *_, line, _ = capsys.readouterr().out.splitlines()
    assert line == f"  coarse images {shape}, averaged in blocks of {block[0]} x {block[1]}"


def test_coarse_images_of_a_subset(tmp_path: Path) -> None:
    write_folder(tmp_path / "source", train=20, test=12)
    options = ["--train-samples", "9", "--coarse", "2"]
    assert main(["prepare", "idx", str(tmp_path / "source"), str(tmp_path / "out.h5"), *options]) == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file["train/coarse"], average(file["train/images"][:], (2, 2)))
        assert len(file["train/coarse"]) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train-samples", "10"], "--train-samples is 10; with 3 classes use a multiple of 3"),
        (["--test-samples", "0"], "--test-samples is 0; with 3 classes use a multiple of 3"),
        (["--test-samples", "-3"], "--test-samples is -3; with 3 classes use a multiple of 3"),
        (["--train-samples", "21"], "--train-samples is 21, 7 per class, but a class has 6 in the source"),
        (
            ["--class-names", "ant,bee"],
            "--class-names lists 2 names, but the source has 3 labels (0, 1, 2); name one for each label",
        ),
        (["--coarse", "x"], "--coarse is 'x'; use one positive integer (2), or one per spatial axis (2,2)"),
        (["--coarse", "1.5"], "--coarse is '1.5'; use one positive integer (2), or one per spatial axis (2,2)"),
        (["--coarse", "2,"], "--coarse is '2,'; use one positive integer (2), or one per spatial axis (2,2)"),
        (["--coarse="], "--coarse is ''; use one positive integer (2), or one per spatial axis (2,2)"),
        (["--coarse", "0"], "--coarse is 0: block [0, 0] must hold positive numbers; use 1 or more along each axis"),
        (
            ["--coarse", "-2"],
            "--coarse is -2: block [-2, -2] must hold positive numbers; use 1 or more along each axis",
        ),
        (["--coarse", "1"], "--coarse is 1: block [1, 1] averages nothing; use 2 or more along at least one axis"),
        (["--coarse", "5"], "--coarse is 5: block [5, 5] is larger than the images, 5 x 4 pixels; use a smaller one"),
        (
            ["--coarse", "2,2,2"],
            "--coarse is 2,2,2: block [2, 2, 2] has 3 axes, but the images have 2 spatial axes, 5 x 4 pixels; "
            "name 2 numbers",
        ),
    ],
)
def test_wrong_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    write_folder(tmp_path / "source", train=20, test=12)
    assert main(["prepare", "idx", str(tmp_path / "source"), str(tmp_path / "out" / "d.h5"), *options]) == 2
    captured = capsys.readouterr()
    check_text(captured.err, f"hpcdd: {message}\n")
    assert captured.out == ""
    assert not list(tmp_path.glob("out/*"))


def test_the_command_as_a_process(tmp_path: Path) -> None:
    write_folders(tmp_path / "source", splits=("train", "validation", "test"))
    command = [sys.executable, "-m", "hpcdd", "prepare", "folder", "source", "out.h5", "--compression", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "validation: 6 samples (ant 2, bee 2, wasp 2)" in done.stdout
    assert inspect(tmp_path / "out.h5").samples == {"train": 6, "validation": 6, "test": 6}
    command[5] = "nothing"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("hpcdd: nothing is not there; name the folder or archive")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@needs_fashion_mnist
def test_the_whole_of_fashion_mnist(tmp_path: Path) -> None:
    out = tmp_path / "full.h5"
    assert main(["prepare", "idx", str(FASHION_MNIST), str(out), "--compression", "1"]) == 0
    info = inspect(out)
    assert info.samples == {"train": 60_000, "test": 10_000}
    assert np.bincount(info.labels["train"]).tolist() == [6000] * 10
    assert np.bincount(info.labels["test"]).tolist() == [1000] * 10
    # The widely quoted 0.2860 and 0.3530, here in units of the stored bytes.
    np.testing.assert_allclose([info.mean[0] / 255, info.std[0] / 255], [0.2860, 0.3530], atol=5e-5)


@pytest.mark.slow
@needs_fashion_mnist
def test_the_embedded_file_comes_from_the_command_that_it_names(tmp_path: Path) -> None:
    with h5py.File(EMBEDDED) as file:
        program, *command = shlex.split(file.attrs["command"].decode())
    assert program == "hpcdd"
    assert command[:3] == ["prepare", "idx", str(FASHION_MNIST)]
    assert Path(command[3]).name == EMBEDDED.name
    command[3] = str(tmp_path / "again.h5")
    assert main(command) == 0
    with h5py.File(EMBEDDED) as old, h5py.File(tmp_path / "again.h5") as new:
        for split in ("train", "test"):
            for name in ("images", "labels"):
                assert np.array_equal(old[split][name], new[split][name])
        assert set(old.attrs) == set(new.attrs)
        for key in set(old.attrs) - {"command"}:
            assert np.array_equal(old.attrs[key], new.attrs[key])
