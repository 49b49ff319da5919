"""Settings under their former names, wherever they can stand: they keep working, with a notice."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from hpcdd.cli import study
from hpcdd.cli.main import main
from hpcdd.config import loading, renamed
from hpcdd.config.options import Overrides
from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError

FORMER = "augmentation:\n  mirror: [1]\n  shift: 2\ntogether: true\n"
PRESENT = Config(augmentation={"flip": [1], "translate": 2}, batched=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(FORMER)
    return path


def test_in_a_file(file: Path) -> None:
    with pytest.warns(FutureWarning) as notices:
        config = loading.load(file)
    assert config == PRESENT
    assert [str(notice.message).split(";")[0] for notice in notices] == [
        f"{file}: {old} is now {new}" for old, new in renamed.RENAMED.items()
    ]


def test_in_overrides_of_a_file_with_either_name(file: Path) -> None:
    for name in ("shift", "translate"):
        with pytest.warns(FutureWarning, match="is now"):
            config = loading.load(file, Overrides.of({f"augmentation.{name}": 3, "together": False}))
        assert (config.augmentation.flip, config.augmentation.translate, config.batched) == ((1,), 3, False)


def test_on_the_command_line_with_one_line_for_each(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["--augmentation.mirror", "1", "--together", "true", "--print-config"]
    assert main(["train", *asked]) == 0
    out, err = capfd.readouterr()
    assert "batched: true" in out
    assert err.splitlines() == [
        "warning: command line: augmentation.mirror is now augmentation.flip; the former name still works",
        "warning: command line: together is now batched; the former name still works",
    ]


def test_a_mistake_stands_at_its_line(file: Path) -> None:
    file.write_text(FORMER.replace("shift: 2", "shift: -2"))
    with pytest.warns(FutureWarning), pytest.raises(UserError, match=rf"{file}:3: augmentation.translate is -2"):
        loading.load(file)


@pytest.mark.parametrize(("former", "present"), renamed.RENAMED.items())
def test_both_names_are_refused(former: str, present: str, tmp_path: Path) -> None:
    section, _, key = former.rpartition(".")
    lines = (
        [f"{section}: {{{key}: true, {present.rpartition('.')[2]}: true}}"]
        if section
        else [f"{former}: true", f"{present}: true"]
    )
    path = tmp_path / "a.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=f"{former} is unknown, because {present}, its present name, is set as well"):
        loading.load(path)


def test_in_a_record_of_an_earlier_run_without_a_notice() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = loading.from_yaml(FORMER, "model.h5")
    assert (config.augmentation, config.batched) == (PRESENT.augmentation, True)


def test_in_a_study_with_the_names_of_its_folders(tmp_path: Path) -> None:
    """Folders are named as the study names its axes, so that a study that was begun is resumed."""
    path = tmp_path / "a.yaml"
    path.write_text(
        "title: A\nconfig: {augmentation: {mirror: [1]}}\nmatrix: {augmentation.shift: [1, 2], seed: [0]}\n"
    )
    with pytest.warns(FutureWarning) as notices:
        request = study.request([str(path), "--together", "true"])
    assert [run.id for run in request.runs] == ["shift=1,seed=0", "shift=2,seed=0"]
    assert {str(notice.message).split(" is now")[0] for notice in notices} == {
        "command line: together",
        f"{path}: augmentation.mirror",
        f"{path}: augmentation.shift",
    }
    configs = [run.config for run in request.runs]
    assert [(c.augmentation.flip, c.augmentation.translate, c.batched) for c in configs] == [
        ((1,), n, True) for n in (1, 2)
    ]
    with pytest.warns(FutureWarning), pytest.raises(UserError, match="--augmentation.translate has no effect"):
        study.request([str(path), "--augmentation.translate", "1"])
