"""What fails while a file is open is damage of the file only where the file is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdd.artifacts.model_file import open_model
from hpcdd.core.errors import UserError
from hpcdd.data.format import inspect, open_dataset, reading_dataset
from hpcdd.data.reading import BoxReader
from hpcdd.decomposition.boxes import Box

from .test_model_file import CASES, written

KINDS = [AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_other_code_is_no_damage_of_a_dataset_file(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="a defect") as caught, open_dataset(tiny):
        raise kind("a defect")
    assert not isinstance(caught.value, UserError)

    def defect(*_: object) -> None:
        raise kind("a defect")

    monkeypatch.setattr(BoxReader, "_fill", defect)
    with pytest.raises(kind, match="a defect") as caught:
        BoxReader(tiny).read("train", Box((0, 0), (4, 4)))
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize("kind", KINDS)
def test_one_met_while_it_is_read_is(tiny: Path, kind: type[Exception]) -> None:
    with pytest.raises(UserError, match=r"^data\.file: .* is damaged \('?no chunk'?\)"), reading_dataset(tiny):
        raise kind("no chunk")


def test_so_with_a_model_file(tmp_path: Path, tiny: Path) -> None:
    path = tmp_path / "model.h5"
    written(path, inspect(tiny), CASES["vgg"])
    for kind in KINDS:
        with pytest.raises(kind, match="a defect") as caught, open_model(path):
            raise kind("a defect")
        assert not isinstance(caught.value, UserError)
        damaged = pytest.raises(UserError, match=r"^model file .* is damaged \('?lost'?\)")
        with open_model(path) as model, damaged, model.reading():
            raise kind("lost")
    with open_model(path) as model, pytest.raises(UserError, match=r"^model file .* is damaged"):
        model.without_columns("coherent_transfer/dnn")  # which was not trained
