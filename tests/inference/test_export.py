"""``hpcdd export``: one graph with the probabilities of the model, read by programs that don't know hpcdd."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import hpcdd
from hpcdd.cli import main
from hpcdd.config.schema import CoherentSettings, DecompositionSettings, ModelSettings
from hpcdd.core.errors import UserError
from hpcdd.data.format import inspect
from hpcdd.data.writing import Split, write_dataset
from hpcdd.inference import export

from ..artifacts.test_model_file import CASES, volumes, written
from ..bad_input.outcome import check_text
from .conftest import STRATEGIES, Run
from .test_load import FLIPPED


# A start from scratch ends in the same graph as one by transfer.
@pytest.mark.parametrize(
    "strategy",
    [
        "dnn",
        *(pytest.param(name, marks=pytest.mark.slow) for name in STRATEGIES if name not in ("dnn", "coherent_scratch")),
    ],
)
def test_the_accuracy_of_the_onnx_file_is_that_of_the_run(
    run: Run, strategy: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    assert main.main(["export", str(run.path), str(path), "--strategy", strategy]) == 0
    out, err = capfd.readouterr()
    first, second = out.splitlines()
    assert first == (
        f"{path}: {strategy}, uint8 images (n, 1, 12, 12) to float64 probabilities (n, 3), "
        f"{path.stat().st_size:,} bytes"
    )
    assert float(second.rpartition(" ")[2]) <= 1e-5
    assert err == ""
    session = onnxruntime.InferenceSession(str(path))
    images, labels = run.test_split()
    (probabilities,) = session.run(None, {"images": images})
    assert int((probabilities.argmax(1) == labels).sum()) / len(labels) == run.accuracy[strategy]
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["two", "three", "four"]
    assert session.get_inputs()[0].shape == ["n", 1, 12, 12]
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["coherent_transfer"])
def test_an_exported_program(run: Run, strategy: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    assert main.main(["export", str(run.path), str(path), "--strategy", strategy]) == 0
    images, _ = run.test_split()
    program = (
        "import sys, numpy, torch; program = torch.export.load(sys.argv[1]).module(); "
        "images = torch.from_numpy(numpy.load('images.npy')); numpy.save('out.npy', program(images).detach().numpy()); "
        "assert not any(name.startswith('hpcdd') for name in sys.modules)"
    )
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", program, path], cwd=tmp_path, check=True)
    expected = hpcdd.load(run.path, strategy).predict_proba(images)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)


@pytest.mark.slow
def test_volumes_of_integers_with_a_coarse_subdomain(tmp_path: Path) -> None:
    written(tmp_path / "model.h5", volumes(tmp_path / "volumes.h5"), CASES["3D coarse"])
    model = hpcdd.load(tmp_path / "model.h5")
    assert model.dtype == "int16"
    assert export.to_onnx(model, tmp_path / "volumes.onnx") <= 1e-5


@pytest.mark.slow
def test_a_residual_network(tmp_path: Path, tiny: Path) -> None:
    written(tmp_path / "model.h5", inspect(tiny), CASES["resnet"])
    assert export.to_onnx(hpcdd.load(tmp_path / "model.h5"), tmp_path / "resnet.onnx") <= 1e-5


@pytest.mark.slow
def test_a_coherent_model_on_penultimate_features(tmp_path: Path, tiny: Path) -> None:
    settings = CoherentSettings(features="penultimate", starts=("transfer",), dnn_start="fresh")
    config = CASES["coarse"].model_copy(update={"coherent": settings})
    written(tmp_path / "model.h5", inspect(tiny), config)
    model = hpcdd.load(tmp_path / "model.h5")
    assert model.strategy == "coherent_transfer"
    assert export.to_onnx(model, tmp_path / "penultimate.onnx") <= 1e-5


def test_a_graph_that_differs_from_the_model_is_not_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = hpcdd.load(run.path, "global")
    predict_proba = model.predict_proba
    monkeypatch.setattr(model, "predict_proba", lambda images: predict_proba(images) + 1e-4)
    with pytest.raises(UserError, match=r"differs from the model by 1\.0e-04, .* 1e-05 .*not written"):
        export.to_pt2(model, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
    with torch.inference_mode():  # what nothing uses is not in it
        assert not model.local


OWN = """
import torch

class Net(torch.nn.Linear):
    def __init__(self, input_shape, num_classes, **_):
        super().__init__(input_shape[1] * input_shape[2], num_classes)

    def forward(self, images):
        return super().forward(torch.special.bessel_j0(images).flatten(1))
"""


def test_an_operator_without_an_onnx_form_is_named(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "with_bessel.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    config = CASES["vgg"].model_copy(update={"model": ModelSettings(name="with_bessel:Net")})
    written(tmp_path / "model.h5", inspect(tiny), config)
    model = hpcdd.load(tmp_path / "model.h5", own="with_bessel:Net")
    with pytest.raises(UserError, match=r"can't be exported by torch\.onnx\.export: No ONNX function .*bessel_j0"):
        export.to_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.glob("*.onnx*"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_an_operator_that_onnxruntime_does_not_know_is_named(tmp_path: Path) -> None:
    """Averages of 17 x 17 pixels of 16 bits need float64."""
    images = np.random.default_rng(0).integers(0, 1 << 16, (6, 1, 68, 68)).astype(np.uint16)
    split = Split.from_array(images, np.arange(6) % 2)
    info = write_dataset(tmp_path / "d.h5", {"train": split, "test": split}, name="d", class_names="ab")
    boxes = DecompositionSettings(boxes=(((0, 0), (4, 4)), ((2, 2), (6, 6))), coarse=True)
    written(tmp_path / "model.h5", info, CASES["coarse"].model_copy(update={"decomposition": boxes}))
    with pytest.raises(UserError, match=r"can't be exported by onnxruntime: .*AveragePool"):
        export.to_onnx(hpcdd.load(tmp_path / "model.h5"), tmp_path / "model.onnx")
    assert not list(tmp_path.glob("*.onnx*"))


def test_packages_that_are_not_installed_are_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name != "onnx" else object())
    assert main.main(["export", str(run.path), str(tmp_path / "model.onnx")]) == 2
    check_text(
        capsys.readouterr().err,
        "hpcdd: ONNX needs onnxscript, onnxruntime, which are not installed; "
        "run `pip install '.[export]'` in a checkout of hpcdd\n",
        ["onnxscript", "onnxruntime"],
    )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["log_pool", "dnn", "coherent_transfer"])
@pytest.mark.parametrize("features", ["logits", "penultimate"])
def test_a_fast_model_with_test_flips(tmp_path: Path, tiny: Path, features: str, strategy: str) -> None:
    aggregation = FLIPPED.aggregation.model_copy(update={"features": features})
    written(tmp_path / "model.h5", inspect(tiny), FLIPPED.model_copy(update={"aggregation": aggregation}))
    assert export.to_onnx(hpcdd.load(tmp_path / "model.h5", strategy), tmp_path / "fast.onnx") <= 1e-5
