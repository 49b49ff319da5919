"""From a name to a CNN, of an hpcdd family or of a user's factory."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import torch

from hpcdd.config.sections import ModelSettings
from hpcdd.core.errors import UserError
from hpcdd.models.registry import (
    MODULES,
    check_allowed,
    check_consent,
    check_user_factory,
    count_parameters,
    create,
    draws_of_user_factory,
)
from hpcdd.models.resnet import ResNet
from hpcdd.models.vgg import VGG

USER_MODULE = '''
import math
from torch import nn

class Flat(nn.Sequential):
    """Two dense layers."""

def good(input_shape, num_classes, width, *, bias=True):
    return Flat(nn.Flatten(), nn.Linear(math.prod(input_shape), width, bias), nn.Linear(width, num_classes, bias))

def one_too_few(input_shape, num_classes, width):
    return good(input_shape, num_classes - 1, width)

def no_module(input_shape, num_classes, width):
    return "a network"

def positional(shape):
    return good(shape, 2, 3)

def half_frozen(input_shape, num_classes, width):
    network = good(input_shape, num_classes, width)
    network[1].requires_grad_(False)
    return network
'''


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user's, of a new name each time because Python remembers modules."""
    name = "user_" + re.sub(r"\W", "_", str(tmp_path))
    (tmp_path / f"{name}.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize(("name", "kind"), [("vgg1", VGG), ("vgg5", VGG), ("resnet8", ResNet), ("resnet20", ResNet)])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 4, 4)], ids=["2D", "3D"])
def test_families(name: str, kind: type, shape: tuple[int, ...]) -> None:
    settings = ModelSettings(name=name)
    network = create(settings, shape, 7, 3)
    assert isinstance(network, kind)
    assert network(torch.randn(2, *shape)).shape == (2, 7)
    assert count_parameters(settings, shape, 7, 3) == sum(p.numel() for p in network.parameters())


def test_depth_comes_from_the_name() -> None:
    layers = {
        name: sum(p.ndim == 4 for p in create(ModelSettings(name=name), (1, 8, 8), 2, 2).parameters())
        for name in ("vgg2", "vgg4", "resnet8", "resnet26")
    }
    assert layers == {"vgg2": 4, "vgg4": 8, "resnet8": 7, "resnet26": 25}


def test_counting_takes_no_memory() -> None:
    """A VGG of 8 blocks and 4096 channels has a few hundred billion parameters."""
    assert count_parameters(ModelSettings(name="vgg8"), (3, 256, 256), 10, 4096) > 10**11


def test_parameters_follow_torchs_seed() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in create(ModelSettings(), (1, 8, 8), 3, 2).parameters()])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_the_users_factory_gets_shape_classes_width_and_options(user_module: str) -> None:
    settings = ModelSettings(name=f"{user_module}:good", options={"bias": False})
    network = create(settings, (2, 3, 4), 5, 6)
    assert type(network).__name__ == "Flat"
    assert [tuple(p.shape) for p in network.parameters()] == [(6, 24), (5, 6)]
    assert count_parameters(settings, (2, 3, 4), 5, 6) == 6 * 24 + 5 * 6
    check_user_factory(settings, [(2, 3, 4), (2, 4, 4)], 5, 6)


def test_frozen_parameters_are_not_counted(user_module: str) -> None:
    assert count_parameters(ModelSettings(name=f"{user_module}:half_frozen"), (2, 3, 4), 5, 6) == 5 * 6 + 5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("{user_module}:no_such", {}, "py has no 'no_such'; check the name"),
        (
            "no_such_module_anywhere:good",
            {},
            "can't be imported .*No module named .*put its folder on PYTHONPATH",
        ),
        ("{user_module}.below:good", {}, "can't be imported"),
        ("{user_module}:positional", {}, "calling it with input_shape .*, num_classes, width .*fails: "),
        ("{user_module}:good", {"depth": 3}, "calling it with .*'depth': 3.* fails: .*depth"),
        ("{user_module}:no_module", {}, "which returns a str, not a torch.nn.Module"),
        ("{user_module}:math", {}, "is a module; it must be a function"),
    ],
)
def test_a_factory_that_does_not_work(user_module: str, name: str, options: dict[str, int], message: str) -> None:
    settings = ModelSettings(name=name.format(user_module=user_module), options=options)
    with pytest.raises(UserError, match=message) as caught:
        create(settings, (1, 4, 4), 3, 2)
    assert settings.name in str(caught.value)


def test_logits_of_a_wrong_shape(user_module: str) -> None:
    settings = ModelSettings(name=f"{user_module}:one_too_few")
    with pytest.raises(
        UserError,
        match=r"maps a batch of shape \(2, 1, 4, 4\) to \(2, 2\); it must return "
        r"logits of shape \(2, 3\)",
    ):
        check_user_factory(settings, [(1, 4, 4)], 3, 2)


def test_families_of_hpcdd_need_no_check() -> None:
    check_user_factory(ModelSettings(), [(1, 10**6, 10**6)], 3, 2)  # would take terabytes


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return (images,)", r"to tuple; it must return logits of shape \(2, 3\)"),
        ("raise RuntimeError('oh')", r"fails on a batch of shape \(2, 1, 4, 4\): RuntimeError: oh; .*mine_\d.py:5"),
    ],
)
def test_a_forward_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str) -> None:
    module = f"mine_{len(body)}"
    (tmp_path / f"{module}.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, **_): super().__init__()\n"
        "    def forward(self, images):\n"
        f"        {body}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message.replace(r"\d", str(len(body)))):
        check_user_factory(ModelSettings(name=f"{module}:Net"), [(1, 4, 4)], 3, 2)


def test_a_forward_that_fails_in_training_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fails_in_training.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self, num_classes, **_): super().__init__(4, num_classes)\n"
        "    def forward(self, images):\n"
        "        assert not self.training, 'oh'\n"
        "        return super().forward(images.flatten(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = ModelSettings(name="fails_in_training:Net")
    check_user_factory(settings, [(1, 2, 2)], 3, 2)
    with pytest.raises(UserError, match=r"training mode .*\(7, 1, 2, 2\): AssertionError: oh; .*training\.py:5"):
        draws_of_user_factory(settings, [(1, 2, 2)], 3, 2)


def test_a_module_that_can_not_be_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_syntax.py").write_text("def factory(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="can't be imported .*SyntaxError"):
        create(ModelSettings(name="broken_syntax:factory"), (1, 4, 4), 3, 2)


@pytest.mark.parametrize(
    ("listed", "user_factory", "trains", "looks"),
    [
        (None, None, True, False),
        (None, "net.deep:make", True, True),
        (None, "net.deep:other", True, False),
        ("", "net.deep:make", False, False),
        ("other, net", None, True, True),
        ("net.deep", None, True, True),
        ("ne,net.deeper", "net.deep:make", False, False),
    ],
)
def test_whose_code_runs(
    listed: str | None, user_factory: str | None, trains: bool, looks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variable, by the name that the user gives, in commands that train and in those that look."""
    if listed is not None:
        monkeypatch.setenv(MODULES, listed)
    settings = ModelSettings(name="net.deep:make")

    expected = pytest.raises(UserError, match=f"net.deep:make.*{MODULES}")
    with contextlib.nullcontext() if trains else expected:
        check_allowed(settings)
    with contextlib.nullcontext() if looks else expected:
        check_consent(settings, user_factory)


def test_families_of_hpcdd_need_no_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODULES, "")
    check_consent(ModelSettings(), None)
