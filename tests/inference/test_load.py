"""hpcdd.load: its accuracies are those of the run, and it is a torch module like any other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import hpcdd
from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.data.format import inspect
from hpcdd.data.reading import BoxReader
from hpcdd.decomposition.boxes import Box
from hpcdd.inference import classifier

from ..artifacts.test_model_file import written
from ..bad_input.outcome import check_text
from .conftest import STRATEGIES, Run


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_accuracy_is_that_of_the_run(run: Run, strategy: str) -> None:
    images, labels = run.test_split()
    model = hpcdd.load(run.path, strategy)
    probabilities = model.predict_proba(images)
    assert int((probabilities.argmax(1) == labels).sum()) / len(labels) == run.accuracy[strategy]
    assert probabilities.shape == (len(labels), 3)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(1), 1)
    with torch.no_grad():
        torch.testing.assert_close(model(torch.from_numpy(images)).numpy(), probabilities)


def test_the_local_accuracies_are_those_of_the_run(run: Run) -> None:
    images, labels = run.test_split()
    local = hpcdd.load(run.path, "global").local_probabilities(images)
    assert local.shape == (90, 5, 3)
    assert [int((local[:, s].argmax(1) == labels).sum()) / 90 for s in range(5)] == run.accuracy["local"]


def test_attributes(run: Run) -> None:
    model = hpcdd.load(str(run.path / "model.h5"))
    assert model.classes == ("two", "three", "four")
    assert model.strategies == STRATEGIES
    assert model.strategy == "coherent_transfer"
    assert model.image_shape == (1, 12, 12)
    assert model.dtype == "uint8"
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("strategy", ["majority", "dnn", "coherent_scratch", "global"])
def test_both_at_once(run: Run, strategy: str) -> None:
    images, _ = run.test_split()
    model = hpcdd.load(run.path, strategy)
    probabilities, local = model.decide(images)
    np.testing.assert_array_equal(probabilities, model.predict_proba(images))
    np.testing.assert_array_equal(local, model.local_probabilities(images))


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_any_number_of_images_in_batches(run: Run, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images = run.test_split()[0][:count]
    model = hpcdd.load(run.path)
    whole = model.predict_proba(images)
    assert whole.shape == (count, 3)
    monkeypatch.setattr(classifier, "_BATCH_PIXELS", 4 * 144)
    assert model.rows == 4
    np.testing.assert_allclose(model.predict_proba(images), whole, atol=1e-6)
    monkeypatch.setattr(classifier, "_BATCH_PIXELS", 300)
    np.testing.assert_allclose(model.predict_proba(images), whole, atol=1e-6)


def test_a_tensor_for_a_tensor(run: Run) -> None:
    images = torch.from_numpy(run.test_split()[0])
    model = hpcdd.load(run.path)
    probabilities = model.predict_proba(images)
    assert isinstance(probabilities, torch.Tensor)
    np.testing.assert_array_equal(probabilities.numpy(), model.predict_proba(images.numpy()))


def test_states_go_from_one_to_another(run: Run) -> None:
    images, _ = run.test_split()
    first, second = (hpcdd.load(run.path, "dnn") for _ in range(2))
    with torch.no_grad():
        for tensor in second.state_dict().values():
            tensor.zero_()
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(first.predict_proba(images), second.predict_proba(images))
    storages = [tensor.data_ptr() for tensor in first.state_dict().values()]
    assert len(set(storages)) == len(storages)  # no parameter has two names


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((2, 1, 12, 11), np.uint8),
            "images have the shape (2, 1, 12, 11), but must have the shape (n, 1, 12, 12), channels first",
        ),
        (
            np.zeros((1, 12, 12), np.uint8),
            "images have the shape (1, 12, 12), but must have the shape (n, 1, 12, 12), channels first",
        ),
        (
            np.zeros((2, 1, 12, 12), np.float32),
            "images are float32; uint8 is needed, with values as the data set stores them",
        ),
    ],
)
def test_other_images_are_refused(
    run: Run, images: np.ndarray[tuple[int, ...], np.dtype[np.generic]], message: str
) -> None:
    for ask in (hpcdd.load(run.path).predict_proba, hpcdd.load(run.path).local_probabilities):
        with pytest.raises(UserError) as error:
            ask(images)
        check_text(str(error.value), message)


def test_an_unknown_strategy(run: Run) -> None:
    with pytest.raises(UserError) as error:
        hpcdd.load(run.path, "median")
    text = str(error.value)
    assert text.startswith("this model was not trained for strategy 'median'")
    assert text.endswith(", ".join(STRATEGIES))


def test_a_run_that_was_copied_without_its_checkpoints(run: Run, tmp_path: Path) -> None:
    for name in ("model.h5", "results.json"):
        shutil.copy(run.path / name, tmp_path)
    assert hpcdd.load(tmp_path).strategy == "coherent_transfer"


def test_loading_imports_no_mpi(run: Run) -> None:
    program = f"import sys, hpcdd; hpcdd.load({str(run.path)!r}); print([m for m in sys.modules if 'mpi' in m])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "mpi4py" not in done.stdout


FLIPPED = Config.model_validate(
    {
        "model": {"name": "fast2", "width": 4},
        "decomposition": {"grid": [2, 2], "coarse": True},
        "augmentation": {"flip": [1], "test_flip": True},
        "coherent": {"starts": ["transfer"], "features": "penultimate", "dnn_start": "pool"},
    }
)


@pytest.mark.parametrize("strategy", ["average", "dnn", "coherent_transfer"])
@pytest.mark.parametrize("features", ["logits", "penultimate"])
def test_an_image_and_its_flip_get_the_same_prediction(
    tmp_path: Path, tiny: Path, strategy: str, features: str
) -> None:
    """With test-time flips; without them they are not."""
    info = inspect(tiny)
    images = BoxReader(tiny).read("test", Box((0, 0), info.image_shape[1:]))
    differences = []
    for flip in (True, False):
        augmentation = FLIPPED.augmentation.model_copy(update={"test_flip": flip})
        aggregation = FLIPPED.aggregation.model_copy(update={"features": features})
        config = FLIPPED.model_copy(update={"augmentation": augmentation, "aggregation": aggregation})
        written(tmp_path / f"{flip}.h5", info, config)
        model = hpcdd.load(tmp_path / f"{flip}.h5", strategy)
        one, other = (model.predict_proba(np.ascontiguousarray(view)) for view in (images, images[..., ::-1]))
        differences.append(float(np.abs(one - other).max()))
        assert float(one.std(0).min()) > 0
    assert differences[0] < 1e-6 < differences[1]
