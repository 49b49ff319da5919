"""Wrong model files: the message, and no code that a file asks for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from hpcdd.artifacts.model_file import open_model
from hpcdd.config.loading import to_yaml
from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError

from .outcome import check_text, snapshot
from .row import CODE, LONG, SENTINEL, Make, folder, text, write_good


def model(change: Callable[[h5py.File], object] = lambda _: None) -> Make:
    """The beginning of a model file, changed."""

    def make() -> None:
        with h5py.File("m.h5", "w") as file:
            file.attrs["hpcdd_model_format"] = 1
            file.attrs["config"] = to_yaml(Config())
            change(file)

    return make


def own(file: h5py.File) -> None:
    """A CNN whose module makes the sentinel when it is imported."""
    text(f"{CODE}\nfactory = None\n", "mine_of_a_model.py")()
    file.attrs["config"] = to_yaml(Config(model={"name": "mine_of_a_model:factory"}))


def python(file: h5py.File) -> None:
    """A configuration that would run code in another reader of YAML."""
    file.attrs["config"] = f'seed: !!python/object/apply:builtins.exec ["{CODE}"]'


def external(file: h5py.File) -> None:
    """Boxes from a raw file."""
    text(bytes(64), "boxes.raw")()
    file.create_dataset("boxes", (1, 2, 2), "i8", external=[("boxes.raw", 0, 32)])


def virtual(file: h5py.File) -> None:
    """Parameters from another HDF5 file."""
    layout = h5py.VirtualLayout((24,), "i8")
    layout[:] = h5py.VirtualSource("good.h5", "train/labels", (24,))
    file.create_group("local/0000").create_virtual_dataset("weight", layout)


def newer(file: h5py.File) -> None:
    """A format that is not known yet."""
    file.attrs["hpcdd_model_format"] = 2


def linked(file: h5py.File) -> None:
    """A DNN in another file."""
    file["dnn"] = h5py.ExternalLink("good.h5", "/train")


def truncated() -> None:
    """The first half of an HDF5 file."""
    Path("m.h5").write_bytes(Path("good.h5").read_bytes()[:7000])


TABLE: dict[str, tuple[Make, str]] = {
    "missing": (lambda: None, "m.h5 is not there; name a model file (model.h5 of a run)"),
    "folder": (folder("m.h5"), "m.h5 is a folder; name a model file (model.h5 of a run)"),
    "empty": (text("", "m.h5"), "m.h5 is empty (0 bytes); copy it again"),
    "text": (text("no model", "m.h5"), "m.h5 is not an HDF5 file; name model.h5 of a run"),
    "truncated": (truncated, "m.h5 is truncated: it has 7,000 of 14,592 bytes; copy or make it again"),
    "dataset": (
        lambda: os.link("good.h5", "m.h5"),
        "m.h5 is not a model file of format 1 (no attribute hpcdd_model_format); name model.h5 of a run",
    ),
    "newer format": (model(newer), "m.h5 is not a model file of format 1 (its format is 2); name model.h5 of a run"),
    "CNN that needs code": (
        model(own),
        "m.h5 asks for code: model.name is 'mine_of_a_model:factory', whose code would run here; if you trust it, "
        "allow it with --own mine_of_a_model:factory (hpcdd.load: own='mine_of_a_model:factory'), or its module in the "
        "variable HPCDD_MODEL_MODULES",
    ),
    "tag of Python": (
        model(python),
        "m.h5 is damaged: its configuration is not valid YAML: the tag !!python/object/apply:builtins.exec is not "
        "supported; a configuration holds strings, numbers, lists and mappings; copy it again",
    ),
    "link": (model(linked), "m.h5: /dnn is a link; a model file must contain all of its data"),
    "raw file": (model(external), "m.h5: /boxes points to other files; a model file must contain all of its data"),
    "virtual": (
        model(virtual),
        "m.h5: /local/0000/weight points to other files; a model file must contain all of its data",
    ),
}


@pytest.mark.parametrize(("make", "message"), TABLE.values(), ids=TABLE.keys())
def test_a_wrong_model_file(make: Make, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_good(Path("good.h5"))
    make()
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as error, open_model(Path("m.h5")):
        pass
    check_text(str(error.value), message)
    assert SENTINEL not in before
    assert snapshot(tmp_path) == before


def test_too_long_a_name() -> None:
    with pytest.raises(UserError) as error, open_model(Path(LONG)):
        pass
    check_text(str(error.value), f"{LONG} can't be a file: File name too long", [LONG])
