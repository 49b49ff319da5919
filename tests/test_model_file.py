"""model.h5: what is read decides as what was written, and nothing else is taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from hpcdd.config import AggregationSettings, Config, DecompositionSettings, ModelSettings
from hpcdd.data.format import DatasetInfo, inspect
from hpcdd.data.reading import BoxReader
from hpcdd.data.samples import Samples
from hpcdd.data.write import Split, write_dataset
from hpcdd.decomposition import Decomposition
from hpcdd.errors import UserError
from hpcdd.model_file import read_model, write_model
from hpcdd.models.dnn import create_dnn, features_of
from hpcdd.models.registry import create
from hpcdd.phases.training import logits_of


def volumes(path: Path) -> DatasetInfo:
    """A 3D data set of int16 with two channels."""
    generator = np.random.default_rng(0)
    images = generator.integers(-1000, 3000, (24, 2, 6, 5, 4)).astype(np.int16)
    split = Split.from_array(images, np.arange(24) % 3)
    write_dataset(path, {"train": split, "test": split}, name="volumes", class_names=["ä", "b", "c"])
    return inspect(path)


def written(
    path: Path, info: DatasetInfo, config: Config
) -> tuple[Decomposition, list[nn.Module], nn.Module, torch.Tensor]:
    """Writes a model whose batch norms have seen data; also gives the local logits on the test split."""
    torch.manual_seed(0)
    decomposition = Decomposition.from_settings(config.decomposition, info.image_shape[1:])
    labels = torch.from_numpy(info.labels["test"])
    cnns, logits = [], []
    for box in decomposition.boxes:
        cnn = create(config.model, (info.image_shape[0], *box.shape), info.num_classes, 3)
        images = torch.from_numpy(BoxReader(info.path).read("test", box))
        samples = Samples.of_images(images, labels, info.mean, info.std, "cpu")
        for start in (0, 8):
            cnn.train()(samples.batch(slice(start, start + 8))[0])
        cnns.append(cnn)
        logits.append(logits_of(cnn, samples))
    dnn = create_dnn(config.aggregation, len(decomposition), info.num_classes)
    write_model(path, config, info, decomposition, 3, (cnn.state_dict() for cnn in cnns), dnn)
    return decomposition, cnns, dnn, torch.stack(logits, 1)


CASES = {
    "vgg": Config(model=ModelSettings(name="vgg2"), decomposition=DecompositionSettings(grid=(2, 3), overlap=1)),
    "resnet": Config(
        model=ModelSettings(name="resnet8"),
        decomposition=DecompositionSettings(boxes=(((0, 0), (5, 12)), ((3, 2), (12, 9)))),
        aggregation=AggregationSettings(hidden=(), features="probabilities"),
    ),
    "3D": Config(name="scan", seed=9, decomposition=DecompositionSettings(grid=(2, 1, 2))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_logits_before_and_after(tmp_path: Path, tiny: Path, case: str) -> None:
    config = CASES[case]
    info = volumes(tmp_path / "volumes.h5") if case == "3D" else inspect(tiny)
    path = tmp_path / "model.h5"
    decomposition, _, dnn, expected = written(path, info, config)
    with h5py.File(info.path) as file:
        images = torch.from_numpy(file["test/images"][:])
    before = images.clone()

    model = read_model(path)
    logits = model.local_logits(images)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    assert logits.std(0).min() > 0  # they do depend on the image
    assert torch.equal(images, before)
    with torch.no_grad():
        features = features_of(expected, config.aggregation)
        torch.testing.assert_close(model.dnn(features), dnn.eval()(features))

    assert model.config == config
    assert model.boxes == decomposition.boxes
    assert model.class_names == info.class_names
    assert (model.image_shape, model.mean, model.std) == (info.image_shape, info.mean, info.std)
    assert not any(network.training for network in (*model.local_cnns, model.dnn))


def test_all_parameters_and_buffers_come_back_bit_by_bit(tmp_path: Path, tiny: Path) -> None:
    _, cnns, dnn, _ = written(tmp_path / "model.h5", inspect(tiny), CASES["vgg"])
    model = read_model(tmp_path / "model.h5")
    for old, new in zip((*cnns, dnn), (*model.local_cnns, model.dnn), strict=True):
        states = old.state_dict(), new.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(name.endswith("running_var") for name in cnns[0].state_dict())


def test_no_temporary_file_stays_and_an_old_one_is_replaced(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_text("old")
    written(path, inspect(tiny), CASES["vgg"])
    assert [p.name for p in tmp_path.iterdir()] == ["model.h5"]
    read_model(path)


def test_the_data_set_is_not_needed_any_more(tmp_path: Path) -> None:
    info = volumes(tmp_path / "volumes.h5")
    written(tmp_path / "model.h5", replace(info, name="renamed"), CASES["3D"])
    info.path.unlink()
    assert read_model(tmp_path / "model.h5").local_logits(torch.zeros(2, 2, 6, 5, 4)).shape == (2, 4, 3)


def test_the_random_state_before_reading_does_not_matter(tmp_path: Path, tiny: Path) -> None:
    written(tmp_path / "model.h5", inspect(tiny), CASES["vgg"])
    images = torch.randint(0, 255, (4, 1, 12, 12), dtype=torch.uint8)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(read_model(tmp_path / "model.h5").local_logits(images))
    assert torch.equal(*results)


def test_other_files_are_refused(tmp_path: Path, tiny: Path) -> None:
    written(tmp_path / "whole.h5", inspect(tiny), CASES["vgg"])
    content = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.h5").write_text("no model")
    (tmp_path / "empty.h5").touch()
    (tmp_path / "newer.h5").write_bytes(content)
    with h5py.File(tmp_path / "newer.h5", "r+") as file:
        file.attrs["hpcdd_model_format"] = 2
    for path in (tiny, tmp_path, *(tmp_path / f"{name}.h5" for name in ("cut", "text", "empty", "newer", "none"))):
        with pytest.raises(UserError, match="model file") as caught:
            read_model(path)
        assert str(path) in str(caught.value)


def test_a_model_file_without_its_parts_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["hpcdd_model_format"] = 1
    with pytest.raises(UserError, match="can't be read as a model file"):
        read_model(tmp_path / "model.h5")
