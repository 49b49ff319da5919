"""``hpcdd evaluate``: the same numbers as the run's own, on any number of ranks; data sets that don't fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

from hpcdd.artifacts import metrics, predictions
from hpcdd.cli import evaluate as command
from hpcdd.cli import main
from hpcdd.core.errors import UserError
from hpcdd.data.format import inspect
from hpcdd.data.reading import BoxReader
from hpcdd.data.writing import Split, write_dataset
from hpcdd.decomposition.boxes import Box
from hpcdd.inference import evaluate
from hpcdd.inference.load import load
from hpcdd.mpi import communicator

from ..conftest import make_split
from ..launchers import Launcher
from .conftest import STRATEGIES, Run


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def evaluated(folder: Path, *arguments: object) -> dict[str, Any]:
    """Evaluates in this process."""
    command.run(communicator.world(), [*map(str, arguments), "--output", str(folder)])
    content: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return content


def test_one_process_gets_the_accuracies_of_the_run(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = evaluated(tmp_path / "e", run.path)
    assert evaluation["accuracy"] == run.accuracy
    assert set(evaluation["metrics"]) == set(STRATEGIES)
    assert {name: values["accuracy"] for name, values in evaluation["metrics"].items()} == {
        name: run.accuracy[name] for name in STRATEGIES
    }
    printed = capsys.readouterr().out
    assert "tiny: test, 90 samples" in printed
    assert f"{run.accuracy['coherent_transfer']:.4f}" in printed
    assert f"{evaluation['metrics']['dnn']['log_loss']:.4f}" in printed
    assert "coarse CNN 4" in printed


def test_the_predictions_of_the_evaluation_are_those_of_the_run(run: Run, tmp_path: Path) -> None:
    evaluated(tmp_path / "e", run.path)
    before, after = (predictions.read(folder / "decisions.h5") for folder in (run.path, tmp_path / "e"))
    assert before.is_whole
    for field in ("rows", "labels", "local", "confidence", "shown", "images"):
        np.testing.assert_array_equal(getattr(before, field), getattr(after, field))
    for kind in ("strategies", "ablation", "gradient"):
        one, other = getattr(before, kind), getattr(after, kind)
        assert list(one) == list(other)
        for name, values in one.items():
            # The ranks share the batches of the baseline.
            np.testing.assert_allclose(values, other[name], rtol=0, atol=1e-6 if name == "global" else 0)


def test_predictions_are_those_of_results_and_of_the_loaded_model(run: Run) -> None:
    written = predictions.read(run.path / "decisions.h5")
    for name in STRATEGIES:
        assert metrics.accuracy(written.predicted(name), written.labels) == run.accuracy[name]
    local = [metrics.accuracy(written.local[:, s], written.labels) for s in range(5)]
    assert local == run.accuracy["local"]
    images, labels = run.test_split()
    np.testing.assert_array_equal(written.labels, labels)
    for name in ("average", "majority", "log_pool", "dnn", "coherent_transfer"):
        np.testing.assert_allclose(load(run.path, name).predict_proba(images), written.strategies[name], atol=1e-5)


@pytest.mark.parametrize("placement", ["root", "distributed"])
def test_a_dnn_on_penultimate_features(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placement: str
) -> None:
    """The run, its evaluation and the loaded model agree to the last sample, for the DNN and for the rules."""
    monkeypatch.chdir(tmp_path)
    config = {
        "data": {"file": str(tiny), "subset": 240},
        "decomposition": {"grid": [2, 1], "coarse": True},
        "augmentation": {"flip": [1], "test_flip": True},
        "model": {"name": "fast2", "width": 4},
        "local": {"batch_size": 8, "epochs": 2},
        "aggregation": {"features": "penultimate", "placement": placement, "batch_size": 8},
        "coherent": {"batch_size": 8, "epochs": 1},
    }
    Path("run.yaml").write_text(yaml.safe_dump(config))
    arguments = ["train", "run.yaml", "--output", "run", "--run.report", "false", "--progress", "off"]
    assert main.main(arguments) == 0
    accuracy = json.loads(Path("run/results.json").read_text())["accuracy"]["test"]
    assert min(accuracy["coherent_transfer"], accuracy["dnn"]) > 0.8
    assert evaluated(Path("e"), "run")["accuracy"] == accuracy
    info = inspect(tiny)
    images = BoxReader(tiny).read("test", Box((0, 0), info.image_shape[1:]))
    for strategy in ("log_pool", "dnn", "coherent_transfer"):
        predicted = load(Path("run"), strategy).predict_proba(images).argmax(1)
        assert float((predicted == info.labels["test"]).mean()) == accuracy[strategy], strategy


@pytest.mark.slow
def test_on_more_ranks_than_subdomains(mpi: Launcher, run: Run, tmp_path: Path) -> None:
    """Seven ranks for five subdomains: two have nothing to do."""
    check_on_ranks(mpi, 7, run, tmp_path)


def test_on_another_number_of_ranks(every_mpi: Launcher, run: Run, tmp_path: Path) -> None:
    check_on_ranks(every_mpi, 3, run, tmp_path)


def check_on_ranks(mpi: Launcher, ranks: int, run: Run, tmp_path: Path) -> None:
    done = mpi.hpcdd(ranks, ["evaluate", run.path, "--output", "e"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "e/evaluation.json").read_text())["accuracy"] == run.accuracy
    after, before = (predictions.read(folder / "decisions.h5") for folder in (tmp_path / "e", run.path))
    for kind in ("strategies", "ablation", "gradient"):
        for name, values in getattr(before, kind).items():
            if name != "global":
                np.testing.assert_array_equal(values, getattr(after, kind)[name])


def test_the_training_split_is_that_of_the_run(run: Run, tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", run.path, "--split", "train")
    assert (evaluation["split"], evaluation["samples"]) == ("train", 240)
    results = json.loads((run.path / "results.json").read_text())
    assert evaluation["accuracy"] == results["accuracy"]["train"]


def test_another_data_set_is_normalised_as_the_training_was(run: Run, tmp_path: Path) -> None:
    """Its own mean and standard deviation differ; the same test images give the same predictions."""
    bright = np.random.default_rng(5).integers(100, 256, (90, 1, 12, 12)).astype(np.uint8)
    train = Split.from_array(bright, np.arange(90) % 3)
    splits = {"train": train, "validation": make_split(30, seed=6), "test": make_split(90, seed=1)}
    write_dataset(tmp_path / "f.h5", splits, name="other", class_names=["two", "three", "four"])
    assert inspect(tmp_path / "f.h5").mean != inspect(run.data).mean
    evaluation = evaluated(tmp_path / "e", run.path / "model.h5", "--data", tmp_path / "f.h5")
    assert evaluation["dataset"] == "other"
    before, after = (predictions.read(folder / "decisions.h5") for folder in (run.path, tmp_path / "e"))
    np.testing.assert_array_equal(before.strategies["coherent_transfer"], after.strategies["coherent_transfer"])
    assert evaluation["accuracy"] == run.accuracy
    validation = evaluated(tmp_path / "v", run.path, "--data", tmp_path / "f.h5", "--split", "validation")
    assert validation["samples"] == 30


def test_without_memory_on_root_samples_are_drawn_and_accuracies_are_those_of_all(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = evaluate.attribution_rows
    monkeypatch.setattr(evaluate, "attribution_rows", lambda *arguments, **_: original(*arguments, most_rows=40))
    evaluation = evaluated(tmp_path / "e", run.path)
    assert (evaluation["samples"], evaluation["examined"]) == (90, 40)
    assert evaluation["accuracy"] == run.accuracy
    assert evaluation["metrics"]["dnn"]["accuracy"] == run.accuracy["dnn"]
    assert "everything but the accuracies is measured on 40 samples" in capsys.readouterr().out


def _data(folder: Path, **change: Any) -> Path:
    names = change.pop("class_names", ["two", "three", "four"])
    splits = {"train": make_split(30, **change), "test": make_split(12, **change)}
    write_dataset(folder / "bad.h5", splits, name="bad", class_names=names)
    return folder / "bad.h5"


def refused(*arguments: object) -> str:
    with pytest.raises(UserError) as error:
        command.run(communicator.world(), list(map(str, arguments)))
    return str(error.value)


def test_classes_in_another_order_are_refused_with_both_sides(run: Run, tmp_path: Path) -> None:
    text = refused(run.path, "--data", _data(tmp_path, class_names=["four", "three", "two"]))
    assert "has the classes four, three, two (3), but the model knows two, three, four (3)" in text


def test_images_of_another_shape_are_refused_with_both_sides(run: Run, tmp_path: Path) -> None:
    text = refused(run.path, "--data", _data(tmp_path, shape=(1, 12, 14)))
    assert "has images of shape [1, 12, 14], but the model takes [1, 12, 12]" in text


def test_a_split_that_is_not_there(run: Run) -> None:
    assert "--split is 'validation', but" in refused(run.path, "--split", "validation")


def test_a_data_set_that_is_not_there(run: Run, tmp_path: Path) -> None:
    text = refused(run.path, "--data", tmp_path / "none.h5")
    assert f"{tmp_path}/none.h5" in text
    assert "is not there" in text


def test_a_folder_that_is_not_a_run(tmp_path: Path) -> None:
    assert "folder without model.h5" in refused(tmp_path)


def test_an_evaluation_is_not_written_into_the_directory_of_a_run(run: Run) -> None:
    assert "which is a run directory; name another folder" in refused(run.path, "--output", run.path)


def test_a_folder_that_can_not_be_made(run: Run) -> None:
    assert "which can't be created" in refused(run.path, "--output", run.data / "e")


@pytest.fixture
def moved(run: Run, tmp_path: Path) -> Path:
    """The run's model file, which names a data set that is gone."""
    shutil.copy(run.path / "model.h5", tmp_path)
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        file.attrs["config"] = file.attrs["config"].replace(str(run.data), str(tmp_path / "gone.h5"))
    return tmp_path / "model.h5"


def test_the_data_set_of_the_run_is_gone(moved: Path) -> None:
    assert "the data set of the run is gone" in refused(moved)


def test_a_damaged_model_file(moved: Path, run: Run) -> None:
    with h5py.File(moved, "r+") as file:
        del file["dnn/first.weight"]
    assert "model.h5 is damaged" in refused(moved, "--data", run.data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: RUN"),
        (["run", "--spilt", "test"], "--spilt is unknown; did you mean --split"),
        (["run", "--split", "tets"], "invalid choice: 'tets'"),
        (["run", "more"], "'more' is one argument too many"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        command.request(arguments)


def test_the_help_says_what_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main.main(["evaluate", "--help"])
    assert done.value.code == 0
    assert "evaluation.json and decisions.h5" in capsys.readouterr().out
