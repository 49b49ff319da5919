"""``hpcdd predict``: from files to classes, with the accuracies of the run."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import hpcdd
from hpcdd.cli import main
from hpcdd.data.prepare.importers.image_files import FORMATS
from hpcdd.inference import classifier

from ..bad_input.outcome import check_text
from .conftest import STRATEGIES, Run


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_accuracy_of_the_test_folder_is_that_of_the_run(
    run: Run, strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(run.path), str(run.folder), "--strategy", strategy, "--format", "json"]
    assert main.main(["predict", *arguments, "--output", str(tmp_path / "p.json")]) == 0
    predictions = json.loads((tmp_path / "p.json").read_text())
    accuracy = run.accuracy[strategy]
    assert predictions["accuracy"] == accuracy
    assert predictions["known"] == len(predictions["predictions"]) == 90
    assert predictions["strategy"] == strategy
    assert capsys.readouterr().out == (
        f"accuracy: {accuracy:.4f}, {round(90 * accuracy)} of 90 images with a known class\n"
        f"predictions: {tmp_path / 'p.json'}\n"
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_accuracy_of_the_dataset_file_is_that_of_the_run(
    run: Run, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["predict", str(run.path), str(run.data), "--strategy", strategy, "--format", "json"]) == 0
    predictions = json.loads(capsys.readouterr().out)
    assert predictions["accuracy"] == run.accuracy[strategy]
    assert [image["image"] for image in predictions["predictions"][:2]] == ["tiny.h5:test[0]", "tiny.h5:test[1]"]


def test_the_prediction_of_an_image(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    image, _ = (values[:1] for values in run.test_split())
    model = hpcdd.load(run.path)
    probabilities, local = model.decide(image)
    predicted, votes = probabilities.argmax(), [model.classes[vote] for vote in local[0].argmax(1)]
    path = str(run.folder / "two/000.png")
    assert main.main(["predict", str(run.path), path, "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    (row,) = csv.DictReader(io.StringIO(out))
    assert row == {
        "image": path,
        "class": model.classes[predicted],
        "probability": str(probabilities.max()),
        "truth": "two",
        **{f"vote_{s}": vote for s, vote in enumerate(votes)},
    }
    correct = int(predicted == 0)
    accuracy = f"accuracy: {correct:.4f}, {correct} of 1 images with a known class\n"
    assert err == accuracy
    assert main.main(["predict", path.replace("/two/000.png", "/../run"), path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["image", "class", "probability", "truth", "votes", "of", "the", "local", "CNNs"]
    assert lines[1].split(maxsplit=4) == [
        path, model.classes[predicted], f"{probabilities.max():.4f}", "two", ", ".join(votes)
    ]  # fmt: skip
    assert lines[2:] == [accuracy.rstrip()]


def test_several_batches_and_sources(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.write(run.folder / "two/000.png", "two/000.png")
    monkeypatch.setattr(classifier, "_BATCH_PIXELS", 7 * 144)
    paths = [run.folder / "two/000.png", run.folder / "three/001.png", run.folder, tmp_path / "some.zip", run.data]
    assert main.main(["predict", str(run.path), *map(str, paths), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 2 + 90 + 1 + 90
    for key in ("class", "truth"):
        in_file = sorted((rows[93 + i][key], rows[93 + i]["truth"]) for i in range(90))
        assert in_file == sorted((row[key], row["truth"]) for row in rows[2:92])
    assert rows[92]["image"] == str(tmp_path / "some.zip/two/000.png")
    assert rows[92]["class"] == rows[0]["class"]


def test_other_sizes_and_colours_are_refused_where_the_data_set_was_of_one_size(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (12, 12)).save(tmp_path / "rgb.jpg")  # becomes grey, as the model takes it
    assert main.main(["predict", str(run.path), str(tmp_path / "rgb.jpg")]) == 0
    assert "accuracy" not in capsys.readouterr().out
    Image.new("L", (13, 12)).save(tmp_path / "wide.png")
    assert main.main(["predict", str(run.path), str(tmp_path / "wide.png")]) == 2
    assert capsys.readouterr() == (
        "",
        f"hpcdd: {tmp_path}/wide.png has the shape (1, 12, 13), but the model takes (1, 12, 12) (channels "
        "first), the shape of all files in its data set; resize it to that shape"
        "; repair or remove it, "
        "or skip bad files with "
        "--skip-bad"
        "\n",
    )


def test_bad_files(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    shutil.copy(run.folder / "two/000.png", folder / "a.png")
    (folder / "b.png").write_text("no image")
    bad = f"{folder}/b.png can't be read as an image: it is damaged, or in none of the formats "
    bad += ", ".join(FORMATS)
    arguments = ["predict", str(run.path), str(folder), "--output", str(tmp_path / "out.csv"), "--format", "csv"]
    assert main.main(arguments) == 2
    assert capsys.readouterr() == ("", f"hpcdd: {bad}; repair or remove it, or skip bad files with --skip-bad\n")
    assert not (tmp_path / "out.csv").exists()
    assert main.main([*arguments, "--skip-bad"]) == 0
    assert f"skipped 1 bad files: {bad}\n" in capsys.readouterr().out
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2
    (folder / "a.png").unlink()
    assert main.main([*arguments, "--skip-bad"]) == 2
    check_text(capsys.readouterr().err, f"hpcdd: none of the images can be read; skipped 1 bad files: {bad}\n")


def test_classes_that_the_model_does_not_know(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(run.data, tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        del file.attrs["fingerprint"]
        file.attrs["class_names"] = ["four", "five", "two"]
    assert main.main(["predict", str(run.path), str(tmp_path / "other.h5"), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["truth"] for row in rows[:3]] == ["four", "", "two"]


def test_one_process_without_mpi(run: Run) -> None:
    program = (
        "import sys; from hpcdd.cli import main as cli; code = cli.main(sys.argv[1:]); "
        "print('mpi4py' in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    arguments = ["predict", run.path, run.folder / "two", "--format", "csv"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "False"


@pytest.mark.parametrize("change", ["dtype", "preparation"])
def test_a_model_file_from_before_these_were_recorded(run: Run, change: str, tmp_path: Path) -> None:
    shutil.copy(run.path / "model.h5", tmp_path)
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        file.attrs.pop(change, None)
    images, _ = run.test_split()
    expected = hpcdd.load(run.path).predict_proba(images)
    np.testing.assert_array_equal(hpcdd.load(tmp_path / "model.h5").predict_proba(images), expected)


def test_classes_of_deeper_folders_and_what_is_not_used(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = (run.folder / "two/000.png").read_bytes()
    for name in ("two/patient/1.png", "other/1.png", "two/1.heic", "@eaDir/1.png"):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / name).write_bytes(image)
    assert main.main(["predict", str(run.path), str(tmp_path / "new"), "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert [row["truth"] for row in csv.DictReader(io.StringIO(out))] == ["", "two"]
    assert f"{tmp_path / 'new'}: not used: 1 .heic in two (not a suffix of images that the model can read)\n" in err
    assert f"{tmp_path / 'new'}: not used: 1 files in @eaDir (made by a file server or system)\n" in err
