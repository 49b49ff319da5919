"""Which run a command line means: also one that an earlier revision has begun, whose settings were fewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from hpcdd.artifacts.evaluation_cache import EvaluationCache
from hpcdd.artifacts.model_file import open_model
from hpcdd.cli import train
from hpcdd.config import loading
from hpcdd.config.schema import Config
from hpcdd.core.errors import UserError
from hpcdd.runs import resume
from hpcdd.runs.reuse import identity, offers
from hpcdd.runs.run_directory import RunDirectory

SETTINGS = [
    f"{name}.{below}" if below else name
    for name, field in Config.model_fields.items()
    if name != "output"
    for below in (type(field.default).model_fields if isinstance(field.default, BaseModel) else [""])
]
FACTS = {"dataset": "f", "blocks": 40, "device": "cpu", "replicas": 1, "workers": 4}


def resolve(arguments: Sequence[str]) -> resume.Job:
    """As ``hpcdd train`` with these arguments."""
    return resume.resolve(train.request(arguments))


def begun(folder: Path, without: str | None = None, **more: Any) -> RunDirectory:
    """A run that was begun with the defaults by a revision that did not know a setting, or knew others."""
    directory = RunDirectory(folder)
    folder.mkdir()
    record = resume.record_of(Config(seed=5), "1234", **FACTS)
    section, _, name = (without or "").rpartition(".")
    if without is not None:
        del (record["config"][section] if section else record["config"])[name]
    record["config"] |= more
    directory.write_record(record)
    return directory


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_is_resumed_that_began_before_a_setting_existed(setting: str, tmp_path: Path) -> None:
    begun(tmp_path / "run", without=setting)
    seed = () if setting == "seed" else ("--seed", "5")
    (tmp_path / "c.yaml").write_text("{}")
    for command in ((), (str(tmp_path / "c.yaml"), *seed)):
        job = resolve([*command, "--resume", "--output", str(tmp_path / "run")])
        assert job.record is not None
        assert job.record["run"] == "1234"
        assert resume.increased(job.record, job.config) == {}


def test_a_setting_that_was_added_means_what_was_done_before_it(tmp_path: Path) -> None:
    """CNNs were trained one after the other on GPUs, too, before `batched` was there; its default is another thing."""
    begun(tmp_path / "run", without="batched")
    (tmp_path / "c.yaml").write_text("{seed: 5}")
    arguments = [str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run")]
    assert resolve(arguments).config.batched is False
    with pytest.raises(UserError, match=r"batched was False in \S+run and is 'auto' now; "):
        resolve([*arguments, "--batched", "auto"])
    # The next job finds it recorded.
    RunDirectory(tmp_path / "run").write_record(resume.record_of(resolve(arguments).config, "1234", **FACTS))
    assert resolve(arguments).config.batched is False


@pytest.mark.parametrize(
    ("recorded", "rate", "scale"),
    [
        ({"learning_rate": None}, None, 0.25),
        ({"learning_rate": 0.02}, 0.02, 0.1),  # the factor has no effect
        ({"learning_rate": 0.02, "starts": ["scratch"]}, 0.02, 0.1),
        ({"learning_rate": None, "starts": []}, None, 0.25),
        ({}, 3e-3, 0.1),  # before both
        ({"learning_rate": None, "rate_scale": 0.5}, None, 0.5),
        ({"learning_rate": 0.02, "rate_scale": 0.1}, 0.02, 0.1),
    ],
)
def test_the_coherent_phase_keeps_the_learning_rate_with_which_a_run_was_begun(
    recorded: dict[str, Any], rate: float | None, scale: float, tmp_path: Path
) -> None:
    coherent = Config().model_dump(mode="json")["coherent"]
    del coherent["learning_rate"], coherent["rate_scale"]
    begun(tmp_path / "run", coherent=coherent | recorded)
    settings = {name: value for name, value in recorded.items() if value is not None}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"seed": 5, "coherent": settings}))
    for command in ((), (str(tmp_path / "c.yaml"),)):
        resumed = resolve([*command, "--resume", "--output", str(tmp_path / "run")]).config.coherent
        assert (resumed.learning_rate, resumed.rate_scale) == (rate, scale)


@pytest.mark.parametrize(("by_blocks", "blocks"), [(False, 0), (True, 16)])
def test_a_run_is_resumed_in_the_order_in_which_it_was_begun(by_blocks: bool, blocks: int, tmp_path: Path) -> None:
    """Once it depended on whether a rank had to stream its samples."""
    record = resume.record_of(Config(), "1234", **{**FACTS, "by_blocks": by_blocks})
    del record["blocks"]
    (tmp_path / "run").mkdir()
    RunDirectory(tmp_path / "run").write_record(record)
    resumed = resolve(["--resume", "--output", str(tmp_path / "run")]).record
    assert resumed is not None
    assert resumed["blocks"] == blocks


def test_a_default_that_has_changed_since_is_named_as_such(tmp_path: Path) -> None:
    config = Config(seed=5).model_dump(mode="json")
    begun(tmp_path / "run", model={**config["model"], "width": 48})
    (tmp_path / "c.yaml").write_text("{seed: 5}")
    with pytest.raises(UserError, match=r"model.width was 48 in \S+run and is 32 now, its default; "):
        resolve([str(tmp_path / "c.yaml"), "--output", str(tmp_path / "run")])
    assert resolve(["--resume", "--output", str(tmp_path / "run")]).config.model.width == 48


def test_a_setting_that_is_no_more_is_refused_with_its_name_and_the_revision(tmp_path: Path) -> None:
    begun(tmp_path / "run", magic=3)
    with pytest.raises(
        UserError, match=r"run holds a configuration of hpcdd 0\.\S+ that .* magic is unknown.*; use it "
    ):
        resolve(["--resume", "--output", str(tmp_path / "run")])


def test_the_result_of_a_run_is_another_runs_though_it_knew_fewer_settings(tmp_path: Path) -> None:
    new, old = begun(tmp_path / "new"), begun(tmp_path / "old", without="decomposition.uniform")
    for directory in (new, old):
        EvaluationCache(directory.checkpoints, "1234").add("dnn", {}, {})
    offered = [offers("local", directory) for directory in (new, old)]
    assert offered[0] is not None
    assert offered[1] is not None
    assert identity("local", offered[0]) == identity("local", offered[1])
    assert offers("local", begun(tmp_path / "other", magic=3)) is None


def test_a_configuration_file_of_a_run_is_read_though_it_knew_fewer_settings() -> None:
    text = "".join(line for line in loading.to_yaml(Config(seed=3)).splitlines(keepends=True) if "batched" not in line)
    assert loading.from_yaml(text, "config.yaml") == Config(seed=3, batched=False)
    with pytest.raises(UserError, match=r"model\.h5 holds a configuration of another revision .* magic is unknown"):
        loading.from_yaml(f"{text}\nmagic: 3", "model.h5")


def test_unknown_settings_of_a_model_file_are_distinguished_from_damage(model: Path) -> None:
    """A name that this revision does not know is not damage."""
    import h5py

    with h5py.File(model, "r+") as file:
        file.attrs["config"] = f"{file.attrs['config']}\nmagic: 3"
    with (
        pytest.raises(UserError, match=r"magic is unknown.*; use it with the revision that wrote it"),
        open_model(model),
    ):
        pass


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file, as far as it is read before its networks."""
    import h5py

    path = tmp_path / "model.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["hpcdd_model_format"], file.attrs["config"] = 1, loading.to_yaml(Config())
    return path
