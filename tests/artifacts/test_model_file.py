"""model.h5: the networks that are read predict as those that were written, and other files are refused."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from hpcdd.artifacts.model_file import ModelFile, write_model
from hpcdd.config.schema import (
    AggregationSettings,
    BaselineSettings,
    CoherentSettings,
    Config,
    DecompositionSettings,
    ModelSettings,
)
from hpcdd.core import environment
from hpcdd.core.environment import resident_memory
from hpcdd.core.errors import UserError
from hpcdd.data.format import DatasetInfo, inspect
from hpcdd.data.reading import BoxReader
from hpcdd.data.samples import Samples
from hpcdd.data.writing import Split, write_dataset
from hpcdd.decomposition.boxes import Box, Decomposition, Subdomain
from hpcdd.inference.classifier import SubimageStack
from hpcdd.inference.load import load
from hpcdd.models.coherent_model import CoherentModel, prepare_cnn
from hpcdd.models.dnn import DNN, create_dnn, features_of
from hpcdd.models.penultimate import Penultimate, feature_widths
from hpcdd.models.registry import create
from hpcdd.models.serialization import State
from hpcdd.training.split_evaluation import logits_of

from .networks import Networks, read_networks


def volumes(path: Path) -> DatasetInfo:
    """A 3D data set of int16 with two channels."""
    generator = np.random.default_rng(0)
    images = generator.integers(-1000, 3000, (24, 2, 6, 5, 4)).astype(np.int16)
    split = Split.from_array(images, np.arange(24) % 3)
    write_dataset(path, {"train": split, "test": split}, name="volumes", class_names=["ä", "b", "c"])
    return inspect(path)


@dataclass
class Written:
    """The networks that were written, in training mode, by their place in the file."""

    decomposition: Decomposition
    local: list[nn.Module]
    dnn: DNN
    coherent: dict[str, CoherentModel]
    global_cnn: nn.Module | None


def written(path: Path, info: DatasetInfo, config: Config) -> Written:
    """Writes a model whose batch norms have seen data."""
    torch.manual_seed(0)
    decomposition = Decomposition.from_settings(config.decomposition, info.image_shape[1:])
    reader, labels, num_classes = BoxReader(info.path), torch.from_numpy(info.labels["test"]), info.num_classes

    def seen(cnn: nn.Module, subdomain: Subdomain) -> nn.Module:
        images = torch.from_numpy(reader.read("test", subdomain.box, subdomain.block if subdomain.is_coarse else None))
        samples = Samples.of_images(images, labels, info.mean, info.std, "cpu")
        for start in (0, 8):
            cnn.train()(samples.batch(slice(start, start + 8))[0])
        return cnn

    shapes = [(info.image_shape[0], *subdomain.shape) for subdomain in decomposition.subdomains]

    def dnn(settings: AggregationSettings, features: str, seed: int) -> DNN:
        return create_dnn(settings, feature_widths(config.model, shapes, num_classes, 3, features), num_classes, seed)

    def cnns() -> list[nn.Module]:
        made = [create(config.model, shape, num_classes, 3) for shape in shapes]
        return [seen(cnn, subdomain) for cnn, subdomain in zip(made, decomposition.subdomains, strict=True)]

    def coherent(features: str) -> CoherentModel:
        prepared = [prepare_cnn(cnn, features, 0.5) for cnn in cnns()]
        return CoherentModel(prepared, dnn(config.coherent_dnn, features, config.seed + 1), features)

    global_cnn = None
    if config.baseline.enabled:
        image = info.image_shape[1:]
        whole = Subdomain(Box((0,) * len(image), image), (1,) * len(image))
        global_cnn = seen(create(config.model, info.image_shape, num_classes, config.model.width), whole)
    networks = Written(
        decomposition,
        cnns(),
        dnn(config.aggregation, config.aggregation.features, config.seed),
        {start: coherent(config.coherent_features) for start in config.coherent.starts},
        global_cnn,
    )

    def states() -> Iterator[tuple[str, State]]:
        for s, cnn in enumerate(networks.local):
            yield f"local/{s:04d}", cnn.state_dict()
        yield "dnn", networks.dnn.state_dict()
        for start, model in networks.coherent.items():
            for s, cnn in enumerate(model.cnns):
                yield f"coherent_{start}/local/{s:04d}", (cnn.cnn if isinstance(cnn, Penultimate) else cnn).state_dict()
            yield f"coherent_{start}/dnn", model.dnn.state_dict()
        if networks.global_cnn is not None:
            yield "global", networks.global_cnn.state_dict()

    write_model(path, config, info, decomposition, 3, states())
    return networks


def subimages(info: DatasetInfo, decomposition: Decomposition) -> list[Samples]:
    """Those of the test split, as a run reads them."""
    labels, reader = torch.from_numpy(info.labels["test"]), BoxReader(info.path)
    return [
        Samples.of_images(
            torch.from_numpy(reader.read("test", s.box, s.block if s.is_coarse else None)),
            labels,
            info.mean,
            info.std,
            "cpu",
        )
        for s in decomposition.subdomains
    ]


def stored_images(info: DatasetInfo) -> torch.Tensor:
    with h5py.File(info.path) as file:
        return torch.from_numpy(file["test/images"][:])


def subimages_of(file: ModelFile, images: torch.Tensor) -> list[torch.Tensor]:
    return SubimageStack(file.subdomains, file.mean, file.std)(images)


def local_logits(model: Networks, images: torch.Tensor) -> torch.Tensor:
    """Float32 (n, S, K)."""
    with torch.no_grad():
        pairs = zip(model.local, subimages_of(model.file, images), strict=True)
        return torch.stack([cnn(subimages) for cnn, subimages in pairs], dim=1)


def data_of(case: str, tmp_path: Path, tiny: Path) -> DatasetInfo:
    return volumes(tmp_path / "volumes.h5") if case.startswith("3D") else inspect(tiny)


NO_COHERENT = CoherentSettings(starts=())
CASES = {
    "vgg": Config(
        model=ModelSettings(name="vgg2"),
        decomposition=DecompositionSettings(grid=(2, 3), overlap=1),
        coherent=NO_COHERENT,
    ),
    "resnet": Config(
        model=ModelSettings(name="resnet8"),
        decomposition=DecompositionSettings(boxes=(((0, 0), (5, 12)), ((3, 2), (12, 9)))),
        aggregation=AggregationSettings(hidden=(), features="probabilities"),
        coherent=NO_COHERENT,
    ),
    "coarse": Config(
        model=ModelSettings(name="vgg1"),
        decomposition=DecompositionSettings(grid=(3, 2), coarse=True),
        coherent=NO_COHERENT,
    ),
    "3D": Config(name="scan", seed=9, decomposition=DecompositionSettings(grid=(2, 1, 2)), coherent=NO_COHERENT),
    "3D coarse": Config(decomposition=DecompositionSettings(grid=(2, 2, 1), coarse=True), coherent=NO_COHERENT),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_logits_before_and_after(tmp_path: Path, tiny: Path, case: str) -> None:
    config, info, path = CASES[case], data_of(case, tmp_path, tiny), tmp_path / "model.h5"
    networks = written(path, info, config)
    samples, images = subimages(info, networks.decomposition), stored_images(info)
    expected = torch.stack([logits_of(cnn, seen, 64) for cnn, seen in zip(networks.local, samples, strict=True)], 1)
    before = images.clone()

    model = read_networks(path)
    logits = local_logits(model, images)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    assert logits.std(0).min() > 0  # they do depend on the image
    assert torch.equal(images, before)
    with torch.no_grad():
        features = features_of(expected, config.aggregation.features).flatten(1)
        torch.testing.assert_close(model.of_strategies["dnn"](features), networks.dnn.eval()(features))

    file = model.file
    assert file.config == config
    assert file.subdomains == networks.decomposition.subdomains
    assert file.class_names == info.class_names
    assert (file.image_shape, file.mean, file.std) == (info.image_shape, info.mean, info.std)
    assert not any(network.training for network in (*model.local, model.of_strategies["dnn"]))
    assert file.strategies == ("average", "majority", "log_pool", "dnn")
    assert list(model.of_strategies) == ["dnn"]


@pytest.mark.parametrize("case", ["coarse", "3D coarse"])
def test_subimages_are_those_that_a_run_reads(tmp_path: Path, tiny: Path, case: str) -> None:
    info = data_of(case, tmp_path, tiny)
    networks = written(tmp_path / "model.h5", info, CASES[case])
    of_model = subimages_of(read_networks(tmp_path / "model.h5").file, stored_images(info))
    assert networks.decomposition.coarse is not None
    for images, samples in zip(of_model, subimages(info, networks.decomposition), strict=True):
        assert torch.equal(images, samples.batch(slice(None))[0])


@pytest.mark.parametrize("features", ["logits", "probabilities", "penultimate"])
@pytest.mark.parametrize("case", ["vgg", "resnet", "coarse", "3D"])
def test_the_coherent_model_is_the_same_before_and_after(tmp_path: Path, tiny: Path, case: str, features: str) -> None:
    settings = {"features": features, "starts": ("transfer", "scratch"), "dnn_start": "fresh"}
    config = CASES[case].model_copy(update={"coherent": CoherentSettings.model_validate(settings)})
    info = data_of(case, tmp_path, tiny)
    networks = written(tmp_path / "model.h5", info, config)
    model = read_networks(tmp_path / "model.h5")
    assert list(model.of_strategies) == ["dnn", "coherent_transfer", "coherent_scratch"]
    inputs = [samples.batch(slice(None))[0] for samples in subimages(info, networks.decomposition)]
    answers = []
    for start, expected in networks.coherent.items():
        loaded = model.of_strategies[f"coherent_{start}"]
        assert loaded.features == features
        assert not any(module.training for module in loaded.modules())
        with torch.no_grad():
            answers.append(loaded(subimages_of(model.file, stored_images(info))))
            torch.testing.assert_close(answers[-1], expected.eval()(inputs), rtol=1e-5, atol=1e-6)
        check_states(loaded, expected)
    assert not torch.allclose(*answers)


@pytest.mark.parametrize("case", ["vgg", "3D"])
def test_the_global_cnn_is_the_same_before_and_after(tmp_path: Path, tiny: Path, case: str) -> None:
    config = CASES[case].model_copy(update={"baseline": BaselineSettings(enabled=True)})
    info = data_of(case, tmp_path, tiny)
    networks, images = written(tmp_path / "model.h5", info, config), stored_images(info)
    assert networks.global_cnn is not None
    check_states(read_networks(tmp_path / "model.h5").of_strategies["global"], networks.global_cnn)
    labels = torch.from_numpy(info.labels["test"])
    inputs, _ = Samples.of_images(images, labels, info.mean, info.std, "cpu").batch(slice(None))
    with torch.no_grad():
        expected = networks.global_cnn.eval()(inputs).double().softmax(1)
    torch.testing.assert_close(load(tmp_path / "model.h5", "global").predict_proba(images), expected)


def check_states(loaded: nn.Module, expected: nn.Module) -> None:
    """Bit by bit."""
    states = loaded.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_all_parameters_and_buffers_come_back_bit_by_bit(tmp_path: Path, tiny: Path) -> None:
    networks = written(tmp_path / "model.h5", inspect(tiny), CASES["vgg"])
    model = read_networks(tmp_path / "model.h5")
    for old, new in zip((*networks.local, networks.dnn), (*model.local, model.of_strategies["dnn"]), strict=True):
        check_states(new, old)
    assert any(name.endswith("running_var") for name in networks.local[0].state_dict())


def test_states_are_consumed_one_at_a_time(tmp_path: Path, tiny: Path) -> None:
    """Written states are released, so that root's memory does not grow with the number of networks."""
    taken: list[weakref.ref[torch.Tensor]] = []

    def states() -> Iterator[tuple[str, State]]:
        for s in range(4):
            gc.collect()
            assert [ref() for ref in taken[:-1]] == [None] * len(taken[:-1])
            tensor = torch.ones(3)
            taken.append(weakref.ref(tensor))
            yield f"local/{s:04d}", {"weight": tensor}
            del tensor

    decomposition = Decomposition.grid((12, 12), (2, 2))
    write_model(tmp_path / "model.h5", Config(), inspect(tiny), decomposition, 3, states())
    assert len(taken) == 4


def test_no_temporary_file_stays_and_an_old_one_is_replaced(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_text("old")
    written(path, inspect(tiny), CASES["vgg"])
    assert [p.name for p in tmp_path.iterdir()] == ["model.h5"]
    read_networks(path)


def test_the_data_set_is_not_needed_any_more(tmp_path: Path) -> None:
    info = volumes(tmp_path / "volumes.h5")
    written(tmp_path / "model.h5", replace(info, name="renamed"), CASES["3D"])
    info.path.unlink()
    images = torch.zeros(2, 2, 6, 5, 4, dtype=torch.int16)
    assert load(tmp_path / "model.h5").local_probabilities(images).shape == (2, 4, 3)


def test_the_random_state_before_reading_does_not_matter(tmp_path: Path, tiny: Path) -> None:
    written(tmp_path / "model.h5", inspect(tiny), CASES["vgg"])
    images = torch.randint(0, 255, (4, 1, 12, 12), dtype=torch.uint8)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(load(tmp_path / "model.h5").local_probabilities(images))
    assert torch.equal(*results)


def test_a_model_file_without_its_networks_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["hpcdd_model_format"] = 1
    with pytest.raises(UserError, match="model file .* is damaged"):
        read_networks(tmp_path / "model.h5")


@pytest.mark.parametrize(
    "part", ["local/0003", "dnn", "coherent_transfer/local/0001", "coherent_transfer/dnn", "global"]
)
def test_a_network_that_is_missing_is_noticed(tmp_path: Path, tiny: Path, part: str) -> None:
    more = {"coherent": CoherentSettings(), "baseline": BaselineSettings(enabled=True)}
    written(tmp_path / "model.h5", inspect(tiny), CASES["vgg"].model_copy(update=more))
    read_networks(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        del file[part]
    with pytest.raises(UserError, match="model file .* is damaged"):
        read_networks(tmp_path / "model.h5")


def edited(setting: str, value: object) -> Callable[[h5py.File], None]:
    """The configuration with another value of one of its settings."""

    def change(file: h5py.File) -> None:
        section, _, name = setting.partition(".")
        content = yaml.safe_load(str(file.attrs["config"]))
        content[section][name] = value
        file.attrs["config"] = yaml.safe_dump(content)

    return change


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def unwritten(name: str, shape: tuple[int, ...], **options: object) -> Callable[[h5py.File], None]:
    """A dataset of which nothing was ever written."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, shape, "f4" if "weight" in name else "i8", **options)

    return change


def box(stop: int) -> Callable[[h5py.File], None]:
    return lambda file: file["boxes"].__setitem__((0, 1), [stop, stop])


GREEDY = {
    "wide local CNNs": (attribute("local_width", 30_000), r"its network has \(30000, .*, the file \(3, "),
    "wide global CNN": (edited("model.width", 30_000), r"/global/.*its network has \(30000, .*, the file \("),
    "wide DNN": (edited("aggregation.hidden", [10**9, 10**9]), r"/dnn/first.*its network has \(1000000000"),
    "large images": (attribute("image_shape", [1, 1 << 20, 1 << 20]), r"4,096\.0 GiB of memory are needed, but"),
    "large boxes": (box(1 << 20), "its network has"),
    "unwritten parameters": (
        unwritten("dnn/first.weight", (1 << 20, 1 << 17)),
        "/dnn/first.weight stores 0 bytes, too few",
    ),
    "sparse boxes": (
        unwritten("boxes", (1 << 35, 2, 2), chunks=(64, 2, 2)),
        "/boxes stores only 0 of the 536,870,912 chunks",
    ),
    "boxes of other images": (
        attribute("image_shape", [1, 4, 4, 4]),
        r"boxes .* do not fit images of shape "
        r"\(1, 4, 4, 4\)",
    ),
}


@pytest.mark.parametrize(("change", "message"), GREEDY.values(), ids=GREEDY.keys())
def test_a_small_file_does_not_ask_for_huge_memory(
    tmp_path: Path, tiny: Path, change: Callable[[h5py.File], None], message: str
) -> None:
    path = tmp_path / "m.h5"
    settings = ModelSettings(name="vgg2", width=4)
    written(path, inspect(tiny), Config(model=settings, coherent=NO_COHERENT, baseline=BaselineSettings(enabled=True)))
    with h5py.File(path, "r+") as file:
        change(file)
    assert path.stat().st_size < 1 << 20
    before = resident_memory()[0]
    with pytest.raises(UserError, match=message):
        read_networks(path)
    assert resident_memory()[0] - before < 1 << 28


def test_parameters_that_memory_has_no_room_for(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "m.h5", inspect(tiny), CASES["vgg"])
    monkeypatch.setattr(environment, "available_memory", lambda: 1000)
    monkeypatch.setattr(environment, "_ALWAYS_THERE", 0)
    with pytest.raises(UserError, match=r"bytes of parameters: 0\.0 GiB of memory are needed, but 0\.0 GiB are free"):
        read_networks(tmp_path / "m.h5")
