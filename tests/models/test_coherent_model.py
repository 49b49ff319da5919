"""The coherent model in one process: what it computes, what of it is trained, and whom it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpcdd.models.coherent_model import CoherentModel, output_of, prepare_cnn
from hpcdd.models.dnn import DNN
from hpcdd.models.penultimate import Penultimate
from hpcdd.models.resnet import ResNet
from hpcdd.models.vgg import VGG

SHAPES = [(1, 4, 6), (1, 5, 5), (1, 3, 4)]
WIDTHS = {"logits": [3, 3, 3], "probabilities": [3, 3, 3], "penultimate": [4, 8, 8]}
FEATURES = list(WIDTHS)


def local_cnns() -> list[nn.Module]:
    """Three CNNs of two families on subimages of three shapes; the last layer of the first one has 4 inputs."""
    torch.manual_seed(0)
    return [
        VGG(1, SHAPES[0], 3, 4, (0.2, 0.5)),
        VGG(2, SHAPES[1], 3, 4, (0.2, 0.5)),
        ResNet(1, SHAPES[2], 3, 2),
    ]


def coherent(features: str) -> CoherentModel:
    cnns = [prepare_cnn(cnn, features, 1.0) for cnn in local_cnns()]
    return CoherentModel(cnns, DNN(WIDTHS[features], (6,), 3, 0.0), features)


def subimages(n: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, *shape, generator=generator) for shape in SHAPES]


@pytest.mark.parametrize("features", FEATURES)
def test_the_dnn_on_what_the_cnns_give(features: str) -> None:
    model, inputs = coherent(features).eval(), subimages()
    seen = []
    for cnn, images in zip(local_cnns(), inputs, strict=True):
        cnn.eval()
        if features == "penultimate":
            seen.append(cnn.penultimate(images))
        else:
            seen.append(cnn(images).softmax(1) if features == "probabilities" else cnn(images))
    first, last = model.dnn.first, model.dnn.rest[2]
    hidden = functional.linear(torch.cat(seen, dim=1), first.weight, first.bias).relu()
    torch.testing.assert_close(model(inputs), functional.linear(hidden, last.weight, last.bias))
    for cnn, images, expected in zip(model.cnns, inputs, seen, strict=True):
        torch.testing.assert_close(output_of(cnn, images, features), expected)


@pytest.mark.parametrize("features", FEATURES)
def test_each_subimage_matters(features: str) -> None:
    model, inputs = coherent(features).eval(), [images.requires_grad_() for images in subimages()]
    model(inputs).square().sum().backward()
    assert all(images.grad is not None and images.grad.any() for images in inputs)


def test_as_many_subimages_as_cnns() -> None:
    with pytest.raises(ValueError, match="zip"):
        coherent("logits")(subimages()[:2])


@pytest.mark.parametrize("features", FEATURES)
def test_a_state_dict_brings_all_of_it_back(features: str) -> None:
    model, inputs = coherent(features).train(), subimages(20)
    model(inputs)  # batch norms see data
    other = coherent(features)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(inputs), model.eval()(inputs))
    assert other.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("features", ["logits", "penultimate"])
def test_the_dnn_computes_in_float32_under_autocast(features: str) -> None:
    model, inputs, seen = coherent(features).eval(), subimages(), []
    model.dnn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(inputs)
    assert seen[0].dtype == logits.dtype == torch.float32
    assert torch.equal(seen[0], seen[0].bfloat16().float()), "the CNNs compute in bfloat16"
    assert torch.equal(logits, model.dnn(seen[0]))


def rates(network: nn.Module) -> list[float]:
    return [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]


@pytest.mark.parametrize("features", FEATURES)
def test_dropout_rates_are_scaled(features: str) -> None:
    network = VGG(3, (1, 8, 8), 3, 2, (0.2, 0.5))
    assert rates(prepare_cnn(network, features, 0.5)) == pytest.approx([0.1, 0.15, 0.2, 0.25])
    assert rates(prepare_cnn(VGG(3, (1, 8, 8), 3, 2, (0.2, 0.5)), features, 0.0)) == [0, 0, 0, 0]
    assert rates(prepare_cnn(VGG(1, (1, 8, 8), 3, 2, (0.2, 0.5)), features, 1.0)) == [0.2, 0.5]


@pytest.mark.parametrize("features", ["logits", "probabilities"])
def test_a_cnn_with_its_last_layer_stays_what_it_is(features: str) -> None:
    network = local_cnns()[0]
    assert prepare_cnn(network, features, 1.0) is network
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("index", [0, 1, 2])
def test_without_its_last_layer_it_is_kept_and_not_trained(index: int) -> None:
    network = local_cnns()[index]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    part = prepare_cnn(network, "penultimate", 1.0)
    assert isinstance(part, Penultimate)
    assert part.cnn is network
    assert part.classifier is network.classifier
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"classifier.weight", "classifier.bias"}

    optimizer = torch.optim.SGD(part.parameters(), 0.1)
    part(subimages()[index]).square().sum().backward()
    optimizer.step()
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert {name for name, p in network.named_parameters() if not torch.equal(before[name], p)} == {
        name for name, _ in network.named_parameters()
    } - frozen
