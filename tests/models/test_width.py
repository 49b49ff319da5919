"""Width matching: the largest local width that fits, found exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.config.sections import ModelSettings
from hpcdd.core.errors import UserError
from hpcdd.decomposition.boxes import Decomposition
from hpcdd.models.registry import count_parameters, create
from hpcdd.models.width import match_widths


def subimages(image: tuple[int, ...], grid: tuple[int, ...], overlap: int = 0) -> list[tuple[int, ...]]:
    return [(image[0], *box.shape) for box in Decomposition.grid(image[1:], grid, overlap).boxes]


CASES = [
    ("vgg3", 32, (3, 32, 32), (2, 2), 0),
    ("vgg3", 32, (1, 28, 28), (2, 2), 3),
    ("vgg2", 9, (1, 13, 10), (3, 2), 0),  # boxes of 5, 4 and 4 rows
    ("vgg4", 20, (3, 31, 33), (4, 3), 1),
    ("vgg1", 40, (3, 17, 9), (1, 1), 0),
    ("resnet8", 16, (3, 32, 32), (4, 4), 0),
    ("resnet20", 16, (1, 13, 10), (3, 2), 0),
    ("vgg2", 12, (1, 9, 8, 7), (2, 1, 2), 0),
    ("resnet8", 10, (2, 9, 8, 7), (2, 2, 2), 1),
]


@pytest.mark.parametrize(("name", "width", "image", "grid", "overlap"), CASES, ids=[str(case[:4]) for case in CASES])
def test_the_largest_that_fits(
    name: str, width: int, image: tuple[int, ...], grid: tuple[int, ...], overlap: int
) -> None:
    settings = ModelSettings(name=name, width=width)
    shapes = subimages(image, grid, overlap)
    widths = match_widths(settings, image, shapes, 10)

    def total(local_width: int) -> int:  # of real networks, independently of the counting without memory
        return sum(p.numel() for shape in shapes for p in create(settings, shape, 10, local_width).parameters())

    budget = sum(p.numel() for p in create(settings, image, 10, width).parameters())
    assert total(widths.local_width) <= budget < total(widths.local_width + 1)
    assert widths.global_width == width
    assert widths.global_parameters == budget
    assert sum(widths.local_parameters) == total(widths.local_width)


def test_four_quarters_of_cifar10() -> None:
    widths = match_widths(ModelSettings(), (3, 32, 32), [(3, 16, 16)] * 4, 10)
    assert widths.global_parameters == 551_722
    assert widths.local_width == 19
    assert widths.local_parameters == (count_parameters(ModelSettings(), (3, 16, 16), 10, 19),) * 4


def test_parameters_are_listed_box_by_box() -> None:
    shapes = subimages((1, 13, 8), (3, 1))
    assert shapes == [(1, 5, 8), (1, 4, 8), (1, 4, 8)]
    settings = ModelSettings(name="vgg1", width=8)
    first, second, third = match_widths(settings, (1, 13, 8), shapes, 4).local_parameters
    assert second == third
    shapes.reverse()
    assert match_widths(settings, (1, 13, 8), shapes, 4).local_parameters == (third, second, first)


@pytest.mark.parametrize("width", [1, 2, 8, 11])
@pytest.mark.parametrize("name", ["vgg2", "resnet8"])
def test_one_subdomain_that_is_the_image_gets_the_global_cnn(name: str, width: int) -> None:
    widths = match_widths(ModelSettings(name=name, width=width), (3, 9, 9), [(3, 9, 9)], 5)
    assert widths.local_width == width
    assert widths.local_parameters == (widths.global_parameters,)


@pytest.mark.parametrize("local_width", [1, 5, 64])
def test_an_explicit_width_is_used_even_over_budget(local_width: int) -> None:
    settings = ModelSettings(width=8, local_width=local_width)
    widths = match_widths(settings, (1, 16, 16), [(1, 8, 8)] * 4, 3)
    assert widths.local_width == local_width
    assert widths.local_parameters == (count_parameters(settings, (1, 8, 8), 3, local_width),) * 4
    assert widths.global_parameters == count_parameters(settings, (1, 16, 16), 3, 8)


def test_a_budget_that_nothing_fits() -> None:
    settings = ModelSettings(width=1)
    with pytest.raises(UserError, match=r"64 local CNNs of width 1 have .* increase model\.width") as caught:
        match_widths(settings, (1, 32, 32), [(1, 4, 4)] * 64, 10)
    for number in (64 * count_parameters(settings, (1, 4, 4), 10, 1), count_parameters(settings, (1, 32, 32), 10, 1)):
        assert f"{number:,}" in str(caught.value)


def test_the_users_factory_is_matched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user_for_width.py").write_text(
        "import math\nfrom torch import nn\n"
        "def make(input_shape, num_classes, width):\n"
        "    inputs = math.prod(input_shape)\n"
        "    dense = nn.Linear(inputs, width, False), nn.Linear(width, num_classes, False)\n"
        "    return nn.Sequential(nn.Flatten(), *dense)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = ModelSettings(name="user_for_width:make", width=10)
    widths = match_widths(settings, (1, 8, 8), [(1, 4, 4)] * 4, 6)
    assert widths.global_parameters == 10 * (64 + 6)
    assert widths.local_width == 700 // (4 * (16 + 6)) == 7


def test_a_factory_that_ignores_the_width_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fixed_width.py").write_text(
        "import math, torch\n"
        "def linear(*, input_shape, num_classes, width):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="does not grow with the width"):
        match_widths(ModelSettings(name="fixed_width:linear"), (1, 8, 8), [(1, 8, 8)], 3)
